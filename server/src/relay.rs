//! The progress of a frontend in a build of this process: its events go to the build's own channel.
//!
//! The graphs of a frontend number their vertices from 0, and so does the build's graph. The relay gives
//! each vertex a number that no other one has. A vertex of several graphs keeps its number, and is not
//! shown again once it has ended.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bollard_buildkit_proto::moby::buildkit::v1::VertexWarning;
use kiln::build::Step;
use kiln_event::{Event, EventReceiver, EventSender, VertexId};
use kiln_oci::Digest;

/// A relay of events. The channel is open until [`Relay::close`].
#[derive(Debug, Default)]
pub(crate) struct Relay(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    events: Option<EventSender>,
    /// The numbers of vertices in the build's channel.
    numbers: HashMap<Digest, VertexId>,
    /// The vertices that have ended.
    ended: HashSet<VertexId>,
    warnings: Vec<VertexWarning>,
}

impl Relay {
    /// Returns a relay to a channel.
    pub(crate) fn to(events: EventSender) -> Self {
        Self(Mutex::new(State { events: Some(events), ..State::default() }))
    }

    /// Forwards events until the last sender is gone.
    pub(crate) async fn forward(&self, mut events: EventReceiver) {
        // `None` for a vertex that has been shown already.
        let mut numbers: HashMap<VertexId, Option<VertexId>> = HashMap::new();
        while let Some(event) = events.recv().await {
            self.lock().take(event, &mut numbers);
        }
    }

    /// Keeps warnings for the end.
    pub(crate) fn warn(&self, warnings: Vec<VertexWarning>) {
        self.lock().warnings.extend(warnings);
    }

    /// Closes the channel, and returns the warnings.
    pub(crate) fn close(&self) -> Vec<VertexWarning> {
        let mut state = self.lock();
        state.events = None;
        std::mem::take(&mut state.warnings)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take(&mut self, mut event: Event, numbers: &mut HashMap<VertexId, Option<VertexId>>) {
        if let Event::Vertex { id, digest, .. } = &event {
            let known = digest.and_then(|digest| self.numbers.get(&digest).copied());
            let number =
                known.unwrap_or_else(|| if digest.is_some() { Step::number() } else { *id });
            self.numbers.extend(digest.map(|digest| (digest, number)));
            let is_new = known.is_none();
            numbers.insert(*id, (is_new || !self.ended.contains(&number)).then_some(number));
            if !is_new {
                return;
            }
        }
        if let Some(id) = event.vertex_mut() {
            match numbers.get(id) {
                Some(Some(number)) => *id = *number,
                Some(None) => return,
                // Steps outside of graphs have numbers of their own.
                None => {}
            }
            let number = *id;
            if let Event::Completed { .. }
            | Event::Cached { .. }
            | Event::Failed { .. }
            | Event::Cancelled { .. } = event
            {
                self.ended.insert(number);
            }
        }
        if let Some(events) = &self.events {
            events.send(event);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn vertex(id: VertexId, name: &str) -> Event {
        let digest = Some(Digest::of(name.as_bytes()));
        Event::Vertex { id, name: name.to_owned(), digest, inputs: Vec::new() }
    }

    async fn relay(relay: &Relay, events: Vec<Event>) {
        let (sender, receiver) = EventSender::channel();
        for event in events {
            sender.send(event);
        }
        drop(sender);
        relay.forward(receiver).await;
    }

    #[tokio::test]
    async fn vertices_of_several_graphs_have_one_number() {
        let (sender, mut receiver) = EventSender::channel();
        let to = Relay::to(sender);
        let completed = Event::Completed { id: 0, duration: Duration::ZERO };
        relay(&to, vec![vertex(0, "a"), Event::Started { id: 0 }, completed]).await;
        relay(&to, vec![vertex(0, "b"), vertex(1, "a"), Event::Cached { id: 1 }]).await;
        relay(&to, vec![vertex(7, "b"), Event::Started { id: 7 }]).await;
        to.close();
        let mut shown = Vec::new();
        while let Some(event) = receiver.recv().await {
            shown.push(event);
        }
        let numbers: Vec<VertexId> =
            shown.iter_mut().map(|event| *event.vertex_mut().unwrap()).collect();
        let [a, _, _, b, last] = numbers[..] else { panic!("{shown:?}") };
        assert_eq!(numbers, [a, a, a, b, b]);
        assert!(a != b && a > 1000 && last == b, "{shown:?}");
    }
}
