//! Operators: the tool that is theirs, and the processes that they run.

mod doctor;
mod install;
mod inventory;
mod jobs;
mod payments;
mod privileges;
mod process;
mod record;

use std::process::{Output, Stdio};

use tokio::{io::AsyncWriteExt, process::Command};

use crate::support::app::TestApp;

/// What a command said, and how it ended.
pub(crate) struct Said {
    status: i32,
    text: String,
}

impl TestApp {
    pub(crate) async fn ctl(&self, arguments: &[&str]) -> Said {
        self.ctl_with_input(arguments, "").await
    }

    async fn ctl_with_input(&self, arguments: &[&str], input: &str) -> Said {
        self.ctl_with(arguments, input, &[]).await
    }

    /// Migrates as the owner, for the role of the processes.
    async fn migrate(&self, arguments: &[&str]) -> Said {
        let arguments = [&["migrate"], arguments].concat();
        let owner = ("MIGRATE_DATABASE_URL", &*self.owner_url);
        self.ctl_with(&arguments, "", &[owner]).await
    }

    async fn ctl_with(&self, arguments: &[&str], input: &str, settings: &[(&str, &str)]) -> Said {
        let mut ctl = Command::new(env!("CARGO_BIN_EXE_ctl"))
            .args(arguments)
            .env("DATABASE_URL", &self.database_url)
            .envs(settings.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut stdin = ctl.stdin.take().unwrap();
        // A command that reads nothing may be gone already.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
        let Output { status, stdout, stderr } = ctl.wait_with_output().await.unwrap();
        let text = [stdout, stderr].concat();
        Said { status: status.code().unwrap(), text: String::from_utf8(text).unwrap() }
    }
}

impl Said {
    #[track_caller]
    pub(crate) fn assert(&self, status: i32, words: &[&str]) -> &Self {
        assert_eq!(self.status, status, "{}", self.text);
        for word in words {
            assert!(self.text.contains(word), "no {word:?} in {}", self.text);
        }
        self
    }
}
