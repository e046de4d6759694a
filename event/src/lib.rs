//! The events of a build, and the channel that carries them.
//!
//! Everything that happens in a build is an [`Event`]: the steps that start and end, the output of their
//! programs, the bytes of a download. Every crate sends its events through an [`EventSender`]. A display,
//! the build record or a server's status stream takes them from an [`EventReceiver`]. Events are plain
//! data, so this crate knows nothing of what steps do.
//!
//! Sending never blocks, because a slow terminal must not slow a build down. Several receivers may listen,
//! each at its own pace, and each receives every event. Events that a receiver hasn't taken wait in memory.
//! Step output beyond a few mebibytes waits in a file (see the `queue` module). Output is lost only if that
//! file can't be written.
//!
//! A function that works for a step takes a [`Reporter`]: the step's number, the channel, and the token that
//! stops the work.
//!
//! ```
//! use kiln_event::{Event, EventSender, Reporter};
//! use tokio_util::sync::CancellationToken;
//!
//! let (events, mut receiver) = EventSender::channel();
//! let reporter = Reporter::new(7, events, CancellationToken::new());
//! reporter.part("sha256:…", Some(100)).finish();
//! assert!(matches!(receiver.try_recv(), Some(Event::Status { id: 7, done: false, .. })));
//! assert!(matches!(receiver.try_recv(), Some(Event::Status { id: 7, done: true, .. })));
//! ```

mod clip;
mod event;
mod queue;
mod reporter;
mod sender;
mod spool;
mod step_key;
mod tail;

pub use clip::LogLimits;
pub use event::{Cause, Event, LayerState, LogStream, VertexId};
pub use queue::{EventReceiver, NoEvent};
pub use reporter::{Part, Reporter, ReportingReader};
pub use sender::EventSender;
pub use spool::Spool;
pub use step_key::{Ingredients, InputPart, Key, Lookup, StepInput, StepKey, VARIABLE};
pub use tail::LogTail;
