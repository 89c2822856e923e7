//! The natural batcher: commands that arrive while a batch is in flight make the next one.

use std::{future::Future, time::Duration};

use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

/// The largest slice a use case is given: large enough to share a commit among a flash sale's
/// shoppers, small enough that the first of a slice does not wait long for its last.
pub const SLICE_MAX: usize = 200;

/// A handle to a task that runs commands in slices, one slice at a time.
///
/// There is no timer: a command that arrives at an idle batcher is run at once, as a slice of one.
/// Commands run in the order of their arrival. Whoever stops waiting before the slice starts is
/// dropped from it; afterwards the command is run whole, whether somebody waits or not.
#[derive(Debug)]
pub struct Batcher<C, R> {
    queue: mpsc::Sender<Waiting<C, R>>,
    wait_max: Duration,
}

/// Why a command was not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("too many requests wait already")]
    Full,
    #[error("the request waited too long")]
    TooLate,
    /// It may or may not have been run.
    #[error("the outcome is unknown")]
    Lost,
}

struct Waiting<C, R> {
    command: C,
    arrived_at: Instant,
    reply: oneshot::Sender<Result<R, Refused>>,
}

impl<C, R> Clone for Batcher<C, R> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone(), wait_max: self.wait_max }
    }
}

impl<C: Send + 'static, R: Send + 'static> Batcher<C, R> {
    /// Starts the task. `run` answers each command of its slice, in order.
    ///
    /// At most `depth` commands wait, each at most `wait_max` before its slice starts.
    pub fn start<F, Fut>(depth: usize, wait_max: Duration, mut run: F) -> Self
    where
        F: FnMut(Vec<C>) -> Fut + Send + 'static,
        Fut: Future<Output = Vec<R>> + Send + 'static,
    {
        let (queue, mut waiting) = mpsc::channel::<Waiting<C, R>>(depth);
        tokio::spawn(async move {
            let mut arrived = Vec::with_capacity(SLICE_MAX);
            while waiting.recv_many(&mut arrived, SLICE_MAX).await > 0 {
                let (commands, replies) = admit(&mut arrived, wait_max);
                if commands.is_empty() {
                    continue;
                }
                // A task of its own, so that a panic costs its slice and not the batcher.
                let answers = tokio::spawn(run(commands)).await.unwrap_or_default();
                let mut answers = answers.into_iter();
                for reply in replies {
                    // The client may have left meanwhile: its command stands all the same.
                    let _ = reply.send(answers.next().ok_or(Refused::Lost));
                }
            }
        });
        Self { queue, wait_max }
    }

    /// Runs the command with the next slice and returns its answer.
    pub async fn run(&self, command: C) -> Result<R, Refused> {
        let (reply, answer) = oneshot::channel();
        let waiting = Waiting { command, arrived_at: Instant::now(), reply };
        self.queue.try_send(waiting).map_err(|_| Refused::Full)?;
        answer.await.unwrap_or(Err(Refused::Lost))
    }

    /// How long a command waits at most before its slice starts.
    pub const fn wait_max(&self) -> Duration {
        self.wait_max
    }
}

/// Takes the commands that somebody still waits for, and refuses those that waited too long.
fn admit<C, R>(
    arrived: &mut Vec<Waiting<C, R>>,
    wait_max: Duration,
) -> (Vec<C>, Vec<oneshot::Sender<Result<R, Refused>>>) {
    let now = Instant::now();
    let mut commands = Vec::with_capacity(arrived.len());
    let mut replies = Vec::with_capacity(arrived.len());
    for waiting in arrived.drain(..) {
        if waiting.reply.is_closed() {
            continue;
        }
        if now.duration_since(waiting.arrived_at) > wait_max {
            let _ = waiting.reply.send(Err(Refused::TooLate));
            continue;
        }
        commands.push(waiting.command);
        replies.push(waiting.reply);
    }
    (commands, replies)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::sync::Semaphore;

    use super::*;

    const LONG: Duration = Duration::from_mins(1);

    #[tokio::test]
    async fn commands_that_arrive_during_a_slice_share_the_next() {
        let gate = Arc::new(Semaphore::new(0));
        let sizes = Arc::new(Mutex::new(Vec::new()));
        let batcher = Batcher::start(100, LONG, {
            let (gate, sizes) = (gate.clone(), sizes.clone());
            move |slice: Vec<u32>| {
                let (gate, sizes) = (gate.clone(), sizes.clone());
                async move {
                    sizes.lock().unwrap().push(slice.len());
                    gate.acquire().await.unwrap().forget();
                    slice.into_iter().map(|n| n * 2).collect()
                }
            }
        });

        let first = tokio::spawn({
            let batcher = batcher.clone();
            async move { batcher.run(1).await }
        });
        while sizes.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        let rest = futures_util::future::join_all((2..12).map(|n| batcher.run(n)));
        let (rest, ()) = tokio::join!(rest, async { gate.add_permits(2) });

        assert_eq!(first.await.unwrap(), Ok(2));
        assert_eq!(rest, (2..12).map(|n| Ok(n * 2)).collect::<Vec<_>>());
        assert_eq!(*sizes.lock().unwrap(), [1, 10]);
    }

    #[tokio::test]
    async fn a_full_queue_refuses_and_a_late_command_is_not_run() {
        let patience = Duration::from_millis(100);
        let gate = Arc::new(Semaphore::new(0));
        let ran = Arc::new(Mutex::new(Vec::<u32>::new()));
        let batcher = Batcher::start(1, patience, {
            let (gate, ran) = (gate.clone(), ran.clone());
            move |slice: Vec<u32>| {
                let (gate, ran) = (gate.clone(), ran.clone());
                async move {
                    ran.lock().unwrap().extend(&slice);
                    gate.acquire().await.unwrap().forget();
                    slice
                }
            }
        });
        let start = |n| {
            let batcher = batcher.clone();
            tokio::spawn(async move { batcher.run(n).await })
        };

        // Where the machine stalls, even the first may be late.
        let begun_at = Instant::now();
        let mut first = start(1);
        while ran.lock().unwrap().is_empty() {
            assert!(begun_at.elapsed() < LONG, "nothing is run");
            if first.is_finished() {
                first = start(1);
            }
            tokio::task::yield_now().await;
        }
        let late = start(2);
        while batcher.queue.capacity() > 0 {
            tokio::task::yield_now().await;
        }

        assert_eq!(batcher.run(3).await, Err(Refused::Full));
        tokio::time::sleep(2 * patience).await;
        gate.add_permits(1);
        assert_eq!(first.await.unwrap(), Ok(1));
        assert_eq!(late.await.unwrap(), Err(Refused::TooLate));
        assert_eq!(*ran.lock().unwrap(), [1]);
    }

    #[tokio::test]
    async fn a_panic_costs_its_slice_and_not_the_batcher() {
        let batcher = Batcher::start(10, LONG, |slice: Vec<u32>| async move {
            assert!(slice[0] != 13, "unlucky");
            slice
        });

        assert_eq!(batcher.run(13).await, Err(Refused::Lost));
        assert_eq!(batcher.run(1).await, Ok(1));
    }
}
