//! Results of parallel tasks, in order.
//!
//! Tasks run on rayon's threads, and their results are taken in the order of the tasks. The budget
//! limits the data of all queues together. A queue beyond the limit waits for its own oldest task.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::time::Duration;

use crate::budget::BlockPermit;

/// A queue of tasks of one layer.
#[derive(Debug)]
pub(crate) struct TaskQueue<T> {
    under_way: VecDeque<PendingTask<T>>,
}

/// A task and its share of the budget. The only task of a queue may have no share.
#[derive(Debug)]
struct PendingTask<T> {
    result: Receiver<T>,
    _permit: Option<BlockPermit>,
}

impl<T> Default for TaskQueue<T> {
    fn default() -> Self {
        Self { under_way: VecDeque::new() }
    }
}

impl<T> TaskQueue<T> {
    /// Adds a task that uses `bytes` bytes, and returns the sender for its result. If the budget is
    /// used up, waits for the oldest tasks and calls `done` with their results.
    ///
    /// # Errors
    /// Fails if a task was dropped, or if `done` fails.
    pub(crate) fn add(
        &mut self,
        bytes: usize,
        done: &mut dyn FnMut(T) -> io::Result<()>,
    ) -> io::Result<Sender<T>> {
        let permit = loop {
            if let Some(permit) = BlockPermit::try_new(bytes) {
                break Some(permit);
            }
            match self.oldest()? {
                Some(result) => done(result)?,
                None => break None,
            }
        };
        let (sender, result) = channel();
        self.under_way.push_back(PendingTask { result, _permit: permit });
        Ok(sender)
    }

    /// Waits for the oldest task. Returns `None` if there is no task.
    ///
    /// # Errors
    /// Fails if the task was dropped.
    pub(crate) fn oldest(&mut self) -> io::Result<Option<T>> {
        self.under_way.pop_front().map(|oldest| wait(&oldest.result)).transpose()
    }
}

/// Waits for a result. A thread of the pool does other work meanwhile. Otherwise all of its threads
/// could wait for one another.
fn wait<T>(result: &Receiver<T>) -> io::Result<T> {
    let died = || io::Error::other("the compressor ended early");
    loop {
        match result.try_recv() {
            Ok(result) => return Ok(result),
            Err(TryRecvError::Disconnected) => return Err(died()),
            Err(TryRecvError::Empty) => {}
        }
        match rayon::yield_now() {
            Some(rayon::Yield::Executed) => {}
            Some(rayon::Yield::Idle) => match result.recv_timeout(Duration::from_millis(1)) {
                Ok(result) => return Ok(result),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(died()),
            },
            None => return result.recv().map_err(|_| died()),
        }
    }
}
