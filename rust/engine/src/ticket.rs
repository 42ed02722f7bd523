//! The promise that every request ends: whatever is dropped on the way, whoever waits for it hears of it.
use crate::budget::Grant;
use crate::failure::{Failure, Kind};
use crate::queue::Queue;
use crate::request::{Outcome, Target};
use std::sync::Arc;

/// A request's place in its queue. Whoever holds it owes the result; dropped without one, it files that the request was lost, as it
/// is when an engine thread panics.
pub struct Ticket {
    queue: Arc<Queue>,
    pub index: u64,
    pub target: Target,
    pub operation: &'static str,
    filed: bool,
}

/// How a request ended, on its way to its queue.
pub struct Finished {
    pub ticket: Ticket,
    pub outcome: Outcome,
    /// What it holds of the byte budget until its result is taken.
    pub grant: Option<Grant>,
}

impl Ticket {
    pub fn new(queue: Arc<Queue>, index: u64, target: Target, operation: &'static str) -> Ticket {
        Ticket { queue, index, target, operation, filed: false }
    }

    pub fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    /// Its result is filed: the promise is kept.
    pub fn keep(mut self) {
        self.filed = true;
    }

    pub fn finish(self, outcome: Outcome, grant: Option<Grant>) -> Finished {
        Finished { ticket: self, outcome, grant }
    }

    pub fn fail(self, failure: Failure) -> Finished {
        self.finish(Outcome::Failure(Box::new(failure)), None)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.filed {
            let ticket = Ticket::new(self.queue.clone(), self.index, self.target.clone(), self.operation);
            let failure = broken(self.operation, &self.target, "an engine thread panicked");
            ticket.fail(failure).file();
        }
    }
}

impl Finished {
    /// Hands it over at once, from any thread. Lanes collect theirs instead.
    pub fn file(self) {
        let queue = self.ticket.queue.clone();
        if queue.complete(std::iter::once(self)) {
            queue.client.budget.nudge(); // another request is the head now
        }
    }
}

/// What a panic becomes.
pub fn broken(operation: &'static str, target: &Target, text: &str) -> Failure {
    let text = format!("the engine failed: {text}; please report this");
    Failure::new(Kind::Internal, operation, &target.route.bucket, &target.key, text)
}
