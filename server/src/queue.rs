//! The builds that run at once. Others wait in the order in which they came.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// A queue of builds. Cloning is cheap.
#[derive(Clone, Debug, Default)]
pub(crate) struct Queue(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    running: usize,
    /// The most builds that run at once. `None` for no limit.
    limit: Option<usize>,
    waiting: VecDeque<oneshot::Sender<Turn>>,
}

/// The right to run. Dropping it lets the next build run.
#[derive(Debug)]
pub(crate) struct Turn(Option<Queue>);

impl Queue {
    /// Sets the most builds that run at once. `None` removes the limit.
    pub(crate) fn limit(&self, limit: Option<usize>) {
        self.lock().limit = limit;
        self.advance();
    }

    /// Returns the right to run at once, or the receiver of it.
    pub(crate) fn join(&self) -> Result<Turn, oneshot::Receiver<Turn>> {
        let mut state = self.lock();
        if state.waiting.is_empty() && state.limit.is_none_or(|limit| state.running < limit) {
            state.running += 1;
            drop(state);
            return Ok(Turn(Some(self.clone())));
        }
        let (sender, receiver) = oneshot::channel();
        state.waiting.push_back(sender);
        Err(receiver)
    }

    /// Gives the right to run to those whose turn it is.
    fn advance(&self) {
        loop {
            let mut state = self.lock();
            if state.limit.is_some_and(|limit| state.running >= limit) {
                return;
            }
            let Some(next) = state.waiting.pop_front() else { return };
            state.running += 1;
            drop(state);
            if let Err(mut turn) = next.send(Turn(Some(self.clone()))) {
                // The build doesn't wait any more. Its turn mustn't call this function again.
                turn.0 = None;
                self.lock().running -= 1;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(queue) = self.0.take() else { return };
        queue.lock().running -= 1;
        queue.advance();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builds_run_in_order() {
        let queue = Queue::default();
        drop(queue.join().unwrap());
        queue.limit(Some(1));
        let first = queue.join().unwrap();
        let mut second = queue.join().unwrap_err();
        let third = queue.join().unwrap_err();
        let mut fourth = queue.join().unwrap_err();
        assert!(second.try_recv().is_err());
        drop(first);
        let turn = second.try_recv().unwrap();
        assert!(fourth.try_recv().is_err());
        drop(third);
        drop(turn);
        let turn = fourth.try_recv().unwrap();
        let mut last = queue.join().unwrap_err();
        queue.limit(None);
        drop(last.try_recv().unwrap());
        drop(turn);
        assert_eq!(queue.lock().running, 0);
    }
}
