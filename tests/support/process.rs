//! One process of the system under test: started, watched, signalled and killed.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use tokio::process::{Child, Command};

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How many lines of a process's log are shown when a test fails.
const LINES_SHOWN: usize = 60;

/// Waits until `look` finds something and returns it; panics with `what` when it takes too long.
pub(crate) async fn eventually<T>(
    what: &str,
    within: Duration,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(begun.elapsed() < within, "not within {} s: {what}", within.as_secs());
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// How a process is started, as often as a test wants to.
#[derive(Debug, Clone)]
pub(crate) struct Recipe {
    /// Says whose log it is.
    pub(crate) name: String,
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    /// Its whole environment, but for the search path.
    pub(crate) settings: Vec<(&'static str, String)>,
    pub(crate) log: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    Terminate,
    /// PostgreSQL: end every session and stop.
    Interrupt,
    /// PostgreSQL: stop at once, and recover at the next start.
    Quit,
    Kill,
    Freeze,
    Thaw,
}

impl Signal {
    const fn name(self) -> &'static str {
        match self {
            Self::Terminate => "TERM",
            Self::Interrupt => "INT",
            Self::Quit => "QUIT",
            Self::Kill => "KILL",
            Self::Freeze => "STOP",
            Self::Thaw => "CONT",
        }
    }
}

/// A running child. Dropping it kills it, and shows the end of its log if the test has failed.
#[derive(Debug)]
pub(crate) struct Process {
    recipe: Recipe,
    child: Child,
    /// Where this run's part of the log begins.
    log_begins: u64,
}

impl Process {
    pub(crate) fn start(recipe: Recipe) -> Self {
        let log = File::options().create(true).append(true).open(&recipe.log).unwrap();
        let log_begins = log.metadata().unwrap().len();
        let mut command = dying_with_us(&recipe.program);
        command
            .args(&recipe.arguments)
            .env_clear()
            .env("PATH", env("PATH").unwrap_or_default())
            .envs(recipe.settings.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .kill_on_drop(true);
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{} cannot be started: {error}", recipe.name));
        Self { recipe, child, log_begins }
    }

    /// Starts it again as it was started before, once the last run has ended.
    pub(crate) async fn restart(&mut self) {
        self.kill9().await;
        *self = Self::start(self.recipe.clone());
    }

    pub(crate) fn name(&self) -> &str {
        &self.recipe.name
    }

    /// The value of the setting it was started with.
    pub(crate) fn setting(&self, name: &str) -> Option<&str> {
        let mut settings = self.recipe.settings.iter();
        settings.find_map(|(known, value)| (*known == name).then_some(value.as_str()))
    }

    /// Starts it differently the next time; without a value the setting is taken away.
    pub(crate) fn set(&mut self, name: &'static str, value: Option<String>) {
        self.recipe.settings.retain(|(known, _)| *known != name);
        self.recipe.settings.extend(value.map(|value| (name, value)));
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let Some(pid) = self.child.id() else { return };
        // The shell's own `kill`: a bare machine has no other, and a signal without it needs unsafe code.
        let command = format!("kill -{} {pid}", signal.name());
        let status = std::process::Command::new("sh").args(["-c", &command]).status().unwrap();
        assert!(status.success(), "{command}");
    }

    /// Kills it without a warning and waits until it is gone.
    pub(crate) async fn kill9(&mut self) {
        let _ = self.child.start_kill();
        self.child.wait().await.unwrap();
    }

    /// Waits until it has ended by itself.
    pub(crate) async fn ended(&mut self, within: Duration) -> ExitStatus {
        let Ok(status) = tokio::time::timeout(within, self.child.wait()).await else {
            panic!("{} has not ended within {} s", self.recipe.name, within.as_secs())
        };
        status.unwrap()
    }

    /// What this run has written so far.
    pub(crate) fn log(&self) -> String {
        let log = fs::read(&self.recipe.log).unwrap_or_default();
        let begins = usize::try_from(self.log_begins).unwrap_or(0).min(log.len());
        String::from_utf8_lossy(&log[begins..]).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Before its log is shown, so that it has no more to say.
        let _ = self.child.start_kill();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            let shown = &lines[lines.len().saturating_sub(LINES_SHOWN)..];
            eprintln!(
                "--- {}, the last {} of {} lines of {} ---\n{}",
                self.recipe.name,
                shown.len(),
                lines.len(),
                self.recipe.log.display(),
                shown.join("\n")
            );
        }
    }
}

/// A command whose process the kernel kills when this one dies, even by SIGKILL.
///
/// Only Linux can do that, and only with `setpriv`; elsewhere a killed test may leave children.
fn dying_with_us(program: &Path) -> Command {
    let setpriv = Path::new("/usr/bin/setpriv");
    if !setpriv.exists() {
        return Command::new(program);
    }
    let mut command = Command::new(setpriv);
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// What the environment of the test run says.
#[expect(clippy::disallowed_methods, reason = "tests have no settings but the environment")]
pub(crate) fn env(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
