//! The real processes of the shop, as children of this one.

use std::{
    env, io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process::Stdio,
    time::Duration,
};

use tokio::{
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

use crate::{
    Outcome,
    http::{Connection, Request},
};

/// Longer than a process needs to find its database on a busy machine.
const READY_WAIT_MAX: Duration = Duration::from_secs(30);

/// A little above the time that a process takes to drain at most.
const STOP_WAIT_MAX: Duration = Duration::from_secs(40);

/// A running process; it is killed when nobody waits for its end.
#[derive(Debug)]
pub(crate) struct Process {
    name: &'static str,
    child: Child,
}

impl Process {
    /// Starts the program beside this one, with these settings alone, and waits until it is ready.
    pub(crate) async fn start(
        name: &'static str,
        settings: impl IntoIterator<Item = (&'static str, String)>,
    ) -> Outcome<Self> {
        let health = free_address()?;
        let program = env::current_exe()?.with_file_name(name);
        let child = Command::new(&program)
            .env_clear()
            .envs(settings)
            .env("HEALTH_LISTEN", health.to_string())
            .stdin(Stdio::null())
            // Standard output is for the figures.
            .stdout(io::stderr())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("{} cannot be started: {error}", program.display()))?;
        let mut process = Self { name, child };
        process.wait_until_ready(health).await?;
        Ok(process)
    }

    pub(crate) const fn name(&self) -> &'static str {
        self.name
    }

    async fn wait_until_ready(&mut self, health: SocketAddr) -> Outcome<()> {
        let deadline = Instant::now() + READY_WAIT_MAX;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("{} ended before it was ready: {status}", self.name).into());
            }
            if is_ready(health).await {
                return Ok(());
            }
            sleep(Duration::from_millis(20)).await;
        }
        Err(format!("{} was not ready within {} s", self.name, READY_WAIT_MAX.as_secs()).into())
    }

    /// Asks the process to drain and end, and waits until it has.
    pub(crate) async fn stop(mut self) -> Outcome<()> {
        if let Some(id) = self.child.id() {
            // The standard library sends no signals; every shell does.
            Command::new("/bin/sh")
                .args(["-c", "kill -TERM \"$0\"", &id.to_string()])
                .status()
                .await?;
        }
        let Ok(status) = timeout(STOP_WAIT_MAX, self.child.wait()).await else {
            return Err(format!("{} did not end when it was asked to", self.name).into());
        };
        match status? {
            status if status.success() => Ok(()),
            status => Err(format!("{} ended badly: {status}", self.name).into()),
        }
    }
}

async fn is_ready(health: SocketAddr) -> bool {
    let asked = async {
        let mut connection = Connection::open(health).await?;
        let answer = connection.ask(&Request::get("/readyz")).await?;
        io::Result::Ok(answer.status == 200)
    };
    matches!(timeout(Duration::from_secs(2), asked).await, Ok(Ok(true)))
}

/// A port of this machine that nobody listened on a moment ago.
pub(crate) fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}
