//! Where a running request stands: what it waits for since when, and whether somebody has called it off.
//!
//! Deadlines cost nothing on the way: a request notes times and byte counts in cells, and the lane looks at all of them
//! fifty times a second.
use crate::failure::{Fault, Kind, Retry};
use crate::queue::Queue;
use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Sleeping before another attempt, waiting for the budget or for credentials: no deadline but cancellation.
    Paused,
    Connecting,
    Sending,
    /// Everything is sent, nothing has come.
    FirstByte,
    Receiving,
    /// One deadline for the whole answer, since the service works for minutes and sends white space meanwhile.
    Long,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Cancelled,
    TimedOut(Phase),
    /// To be sent again elsewhere, since its answer does not begin.
    Hedged,
}

/// Under this rate for the whole stall timeout, a transfer counts as stalled.
const STALL_BYTES_PER_S: u64 = 64 << 10;

pub struct Slot {
    queue: Arc<Queue>,
    index: u64,
    phase: Cell<Phase>,
    since: Cell<Instant>,
    deadline: Cell<Option<Duration>>,
    hedge_after: Cell<Option<Duration>>,
    moved: Cell<u64>,
    moved_at_since: Cell<u64>,
    verdict: Cell<Option<Verdict>>,
    waker: RefCell<Option<Waker>>,
}

impl Slot {
    pub fn new(queue: Arc<Queue>, index: u64) -> Slot {
        Slot {
            queue,
            index,
            phase: Cell::new(Phase::Paused),
            since: Cell::new(Instant::now()),
            deadline: Cell::new(None),
            hedge_after: Cell::new(None),
            moved: Cell::new(0),
            moved_at_since: Cell::new(0),
            verdict: Cell::new(None),
            waker: RefCell::new(None),
        }
    }

    /// For transfers `deadline` is the stall timeout; `None`: none.
    pub fn enter(&self, phase: Phase, deadline: Option<Duration>) {
        self.phase.set(phase);
        self.since.set(Instant::now());
        self.deadline.set(deadline);
        self.hedge_after.set(None);
        self.moved_at_since.set(self.moved.get());
        if matches!(self.verdict.get(), Some(Verdict::TimedOut(_) | Verdict::Hedged)) {
            self.verdict.set(None); // an attempt's end, not the request's
        }
    }

    /// Calls the attempt off when nothing has come so long after the phase began, if its client may send one more.
    pub fn hedge_after(&self, delay: Duration) {
        self.hedge_after.set(Some(delay));
    }

    pub fn add_moved(&self, bytes: usize) {
        self.moved.set(self.moved.get() + bytes as u64);
    }

    /// To be asked at every poll: what ends this attempt, and who is to be woken when that changes.
    pub fn check(&self, cx: &Context<'_>) -> Result<(), Fault> {
        if let Some(verdict) = self.verdict.get() {
            return Err(self.fault(verdict));
        }
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        Ok(())
    }

    /// Whether it must be admitted whatever the budget says.
    pub fn is_due(&self) -> bool {
        self.queue.is_due(self.index)
    }

    pub fn is_cancelled(&self) -> bool {
        self.verdict.get() == Some(Verdict::Cancelled) || self.queue.is_cancelled(self.index)
    }

    /// The lane's look at it: cancellations always, deadlines by the clock.
    pub fn watch(&self, now: Instant) {
        if self.verdict.get().is_some() {
            return;
        }
        if self.queue.is_cancelled(self.index) {
            return self.decide(Verdict::Cancelled);
        }
        let Some(deadline) = self.deadline.get() else { return };
        let spent = now.saturating_duration_since(self.since.get());
        let silent = self.moved.get() == self.moved_at_since.get();
        if self.hedge_after.get().is_some_and(|delay| silent && spent >= delay) && self.queue.client.may_hedge() {
            return self.decide(Verdict::Hedged);
        }
        if spent < deadline {
            return;
        }
        let phase = self.phase.get();
        if matches!(phase, Phase::Sending | Phase::Receiving) {
            let moved = self.moved.get() - self.moved_at_since.get();
            if moved as f64 >= STALL_BYTES_PER_S as f64 * spent.as_secs_f64() {
                self.since.set(now);
                self.moved_at_since.set(self.moved.get());
                return;
            }
        }
        self.decide(Verdict::TimedOut(phase));
    }

    fn decide(&self, verdict: Verdict) {
        self.verdict.set(Some(verdict));
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    fn fault(&self, verdict: Verdict) -> Fault {
        let phase = match verdict {
            Verdict::TimedOut(phase) => phase,
            Verdict::Cancelled => return Fault::cancelled(),
            Verdict::Hedged => {
                let text = "no answer for long: sent again on another connection";
                return Fault::new(Kind::FirstByteTimeout, Retry::Hedged, text);
            }
        };
        let after = self.deadline.get().unwrap_or_default().as_secs_f64();
        let (kind, text) = match phase {
            Phase::Connecting => (Kind::ConnectTimeout, format!("no connection within {after} s")),
            Phase::FirstByte => (Kind::FirstByteTimeout, format!("no answer within {after} s")),
            Phase::Long => (Kind::FirstByteTimeout, format!("no complete answer within {after} s")),
            _ => (Kind::StallTimeout, format!("less than 64 KiB/s for {after} s")),
        };
        Fault::new(kind, Retry::Counted, text)
    }
}
