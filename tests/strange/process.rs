//! A real API process, whose memory and descriptors are its own.

use std::{fs, net::SocketAddr, path::Path, process::Stdio, time::Duration};

use tokio::{
    process::{Child, Command},
    time::timeout,
};

use crate::{
    raw::{PLAIN, Raw},
    support::{
        app::{GUEST_KEYS, KEYS, NO_LIMITS, TestApp},
        client::until,
        ports::free_port,
    },
};

#[derive(Debug)]
pub(crate) struct Api {
    pub(crate) address: SocketAddr,
    child: Child,
}

impl Api {
    pub(crate) async fn start(app: &TestApp) -> Self {
        let (address, health) = (free_port(), free_port());
        let mut command = Command::new(env!("CARGO_BIN_EXE_api"));
        command
            .env("ENVIRONMENT", "development")
            .env("DATABASE_URL", &app.database_url)
            // Redis is away, and that is no reason not to work.
            .env("REDIS_URL", "redis://127.0.0.1:1")
            .env("HEALTH_LISTEN", health.to_string())
            .env("LISTEN", address.to_string())
            .env("TOKEN_KEYS", KEYS)
            .env("GUEST_TOKEN_KEYS", GUEST_KEYS)
            .env("LIMITS", NO_LIMITS)
            .env("LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true);
        let api = Self { address, child: command.spawn().unwrap() };
        until("the process is ready", async || {
            let answer = simulator::get(format!("http://{health}/readyz")).await;
            let status = answer.map_err(|error| error.to_string())?.status();
            if status.as_u16() == 200 { Ok(()) } else { Err(status.to_string()) }
        })
        .await;
        // Its pool and its caches are there before anybody looks at its memory.
        for _ in 0..20 {
            assert_eq!(Raw::connect(address).await.ask(PLAIN).await.status, 200);
        }
        api
    }

    /// The memory that it has at the moment, in KiB.
    pub(crate) fn memory(&self) -> u64 {
        self.status_of("VmRSS:")
    }

    /// The most memory that it ever had, in KiB.
    pub(crate) fn memory_peak(&self) -> u64 {
        self.status_of("VmHWM:")
    }

    fn status_of(&self, name: &str) -> u64 {
        let status = fs::read_to_string(self.folder().join("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(self.folder().join("fd")).unwrap().count()
    }

    /// Lets it open so many descriptors more than it has. Returns how many it can have.
    pub(crate) async fn limit_descriptors(&self, more: usize) -> usize {
        let open = fs::read_dir(self.folder().join("fd")).unwrap();
        let numbers = open.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse());
        // The limit is one of their numbers; those that are free below are filled as well.
        let limit = numbers.map(Result::<usize, _>::unwrap).max().unwrap() + 1 + more;
        let process = self.child.id().unwrap().to_string();
        let nofile = format!("--nofile={limit}:{limit}");
        let prlimit = Command::new("prlimit").args(["--pid", &process, &nofile]).status().await;
        assert!(prlimit.unwrap().success());
        limit
    }

    fn folder(&self) -> std::path::PathBuf {
        Path::new("/proc").join(self.child.id().unwrap().to_string())
    }

    pub(crate) async fn terminate(&self) {
        let command = format!("kill -TERM {}", self.child.id().unwrap());
        assert!(Command::new("sh").args(["-c", &command]).status().await.unwrap().success());
    }

    /// Waits until it has ended by itself, and returns its exit code.
    pub(crate) async fn ended(mut self, within: Duration) -> Option<i32> {
        timeout(within, self.child.wait()).await.expect("it ends in time").unwrap().code()
    }
}
