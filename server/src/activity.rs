//! Counters of what is going on: the connections and builds of a server, the programs of a container.

use std::time::Duration;

use tokio::sync::watch;

/// A counter of what is going on. Cloning is cheap.
#[derive(Clone, Debug)]
pub(crate) struct Activity(watch::Sender<usize>);

/// A thing that is going on, until it is dropped.
#[derive(Debug)]
pub(crate) struct Busy(watch::Sender<usize>);

impl Activity {
    /// Creates a counter at zero.
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(0))
    }

    /// Counts a thing until the result is dropped.
    pub(crate) fn begin(&self) -> Busy {
        self.0.send_modify(|count| *count += 1);
        Busy(self.0.clone())
    }

    /// Waits until nothing is going on.
    pub(crate) async fn end(&self) {
        // The sender is this counter's own.
        let _ = self.0.subscribe().wait_for(|count| *count == 0).await;
    }

    /// Waits until nothing has gone on for some time.
    pub(crate) async fn idle(&self, time: Duration) {
        let mut count = self.0.subscribe();
        loop {
            let is_idle = *count.borrow_and_update() == 0;
            tokio::select! {
                () = tokio::time::sleep(time), if is_idle => return,
                // The sender is this counter's own.
                _ = count.changed() => {}
            }
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn idleness_begins_anew_with_each_thing() {
        let activity = Activity::new();
        let hour = Duration::from_hours(1);
        let busy = activity.begin();
        let idle = tokio::spawn({
            let activity = activity.clone();
            async move { activity.idle(hour).await }
        });
        tokio::time::sleep(hour * 3).await;
        assert!(!idle.is_finished());
        drop(busy);
        tokio::time::sleep(hour / 2).await;
        drop(activity.begin());
        tokio::time::sleep(hour * 3 / 4).await;
        assert!(!idle.is_finished());
        tokio::time::sleep(hour / 2).await;
        assert!(idle.is_finished());
    }
}
