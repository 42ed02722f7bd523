//! Submission and completion: what waits to start, what has ended and waits to be taken, and who is woken when.
use crate::assembly::Assembly;
use crate::budget::Grant;
use crate::client::Client;
use crate::engine::Engine;
use crate::failure::{Failure, Kind};
use crate::pace::Pace;
use crate::request::{Job, Outcome, Target};
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering::*};
use crate::sync::{Condvar, Mutex, MutexGuard};
use crate::ticket::Finished;
use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What waits in a queue for a lane.
pub enum Pending {
    Job(Job),
    /// A result in parallel ranges, of which some still wait.
    Split(Arc<Assembly>),
}

impl Pending {
    pub fn pace(&self) -> &Pace {
        match self {
            Pending::Job(job) => job.pace(),
            Pending::Split(assembly) => &assembly.target.route.reads,
        }
    }

    pub fn index(&self) -> u64 {
        match self {
            Pending::Job(job) => job.ticket.index,
            Pending::Split(assembly) => assembly.index,
        }
    }
}

/// A result, and its bytes of the budget until somebody takes it.
pub struct Completed {
    pub index: u64,
    pub outcome: Outcome,
    pub grant: Option<Grant>,
}

/// What a waiting thread waits for.
#[derive(Clone)]
enum Want {
    Any(usize),
    These(Range<u64>),
}

#[derive(Default)]
struct State {
    submitted: u64,
    /// Results that were not taken, and their order of completion (with indices taken out of order left in).
    results: HashMap<u64, Completed>,
    order: VecDeque<u64>,
    /// `finished[i]`: request `lowest + i` has ended.
    finished: VecDeque<bool>,
    finished_count: u64,
    wants: Vec<(u64, Want)>,
    next_want: u64,
    /// Results up to here, exclusive, were asked for by index when they were not there yet.
    asked: u64,
}

impl State {
    fn satisfied(&self, want: &Want) -> bool {
        match want {
            Want::Any(n) => self.results.len() >= *n || self.finished_count == self.submitted,
            Want::These(range) => range.clone().all(|i| self.results.contains_key(&i)),
        }
    }
}

pub struct Queue {
    pub engine: Arc<Engine>,
    pub client: Arc<Client>,
    pub pending: Mutex<VecDeque<Pending>>,
    /// In the scheduler's ring; changed under its lock only.
    pub in_ring: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
    /// The first request that has not ended: it is admitted whatever the budget says.
    lowest: AtomicU64,
    cancelled_all: AtomicBool,
    any_cancelled: AtomicBool,
    cancelled: Mutex<Vec<Range<u64>>>,
}

/// Why nothing could be taken.
#[derive(Debug, PartialEq, Eq)]
pub enum TakeError {
    NotYet,
    /// Never submitted, or taken already.
    Gone(u64),
}

impl Queue {
    pub fn new(engine: Arc<Engine>, client: Arc<Client>) -> Arc<Queue> {
        Arc::new(Queue {
            engine,
            client,
            pending: Mutex::default(),
            in_ring: AtomicBool::new(false),
            state: Mutex::default(),
            changed: Condvar::new(),
            lowest: AtomicU64::new(0),
            cancelled_all: AtomicBool::new(false),
            any_cancelled: AtomicBool::new(false),
            cancelled: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// `make` gets the index of each request; -> the first one's.
    pub fn submit(self: &Arc<Self>, count: usize, mut make: impl FnMut(u64) -> Pending) -> u64 {
        let first = self.count(count);
        let jobs: Vec<Pending> = (first..first + count as u64).map(&mut make).collect();
        self.put(jobs);
        first
    }

    /// Indices for so many requests: -> the first.
    fn count(&self, count: usize) -> u64 {
        let mut state = self.lock();
        let first = state.submitted;
        state.submitted += count as u64;
        state.finished.extend(std::iter::repeat_n(false, count));
        first
    }

    /// For lanes to fetch.
    fn put(self: &Arc<Self>, jobs: Vec<Pending>) {
        let mut pending = self.pending.lock().unwrap_or_else(|e| e.into_inner());
        if self.cancelled_all.load(Acquire) {
            // Closed, perhaps just now by another thread: the callers' memory may not be pinned any more.
            drop(pending);
            self.end_unstarted(jobs, cancelled);
        } else {
            let count = jobs.len();
            pending.extend(jobs);
            drop(pending);
            self.engine.enqueue(self, count);
        }
    }

    /// Submits one request and serves it on this thread where that is possible; -> its index. `interrupted` is asked ten times a second,
    /// and cancels the queue.
    pub fn serve(self: &Arc<Self>, make: impl FnOnce(u64) -> Job, interrupted: impl FnMut() -> bool) -> u64 {
        let index = self.count(1);
        if let Err(job) = crate::caller::serve(&self.engine, make(index), interrupted) {
            self.put(vec![Pending::Job(job)]);
        }
        index
    }

    /// Whether this is the first request that has not ended.
    pub fn is_head(&self, index: u64) -> bool {
        index <= self.lowest.load(Acquire)
    }

    /// Whether this request must be admitted even when the budget is used up: it is the first that has not ended, and whoever
    /// takes results has nothing else to take, or waits for more. Else results that nobody takes would pile up without end.
    pub fn is_due(&self, index: u64) -> bool {
        if !self.is_head(index) {
            return false;
        }
        let state = self.lock();
        state.results.is_empty() || index < state.asked || !state.wants.is_empty()
    }

    pub fn is_cancelled(&self, index: u64) -> bool {
        self.cancelled_all.load(Acquire)
            || self.any_cancelled.load(Acquire)
                && self.cancelled.lock().unwrap_or_else(|e| e.into_inner()).iter().any(|r| r.contains(&index))
    }

    /// Files results under one lock and wakes who waited for them; -> whether the head moved, so that another may be admitted now.
    pub fn complete(&self, results: impl Iterator<Item = Finished>) -> bool {
        let mut state = self.lock();
        let before = self.lowest.load(Relaxed);
        for Finished { ticket, outcome, grant } in results {
            let index = ticket.index;
            ticket.keep();
            let slot = index.checked_sub(before).and_then(|i| state.finished.get_mut(i as usize));
            if slot.is_none_or(|done| std::mem::replace(done, true)) {
                continue; // cannot be: each request ends once
            }
            state.finished_count += 1;
            state.order.push_back(index);
            state.results.insert(index, Completed { index, outcome, grant });
        }
        let mut lowest = before;
        while state.finished.front() == Some(&true) {
            state.finished.pop_front();
            lowest += 1;
        }
        self.lowest.store(lowest, Release);
        let State { wants, results, .. } = &mut *state;
        for (_, want) in wants {
            // What is there need not be looked at again and again. (Should another thread take it, the waiting one notices.)
            if let Want::These(range) = want {
                while range.start < range.end && results.contains_key(&range.start) {
                    range.start += 1;
                }
            }
        }
        if state.wants.iter().any(|(_, want)| state.satisfied(want)) {
            self.changed.notify_all();
        }
        lowest != before
    }

    /// Waits for what is wanted, at most so long: -> whether it is there.
    fn wait<'a>(&'a self, mut state: MutexGuard<'a, State>, want: Want, until: Instant) -> MutexGuard<'a, State> {
        if state.satisfied(&want) {
            return state;
        }
        let id = state.next_want;
        state.next_want += 1;
        state.wants.push((id, want.clone()));
        if let Want::These(range) = &want {
            state.asked = state.asked.max(range.end);
        }
        // What was held back while nobody waited may be due now.
        self.client.budget.nudge();
        while !state.satisfied(&want) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(|e| e.into_inner()).0;
        }
        state.wants.retain(|(other, _)| *other != id);
        state
    }

    /// Results in the order of completion. `None` in the second place: fewer than wanted, though more will come.
    pub fn next(&self, min: usize, max: usize, timeout: Duration) -> (Vec<Completed>, bool) {
        let want = Want::Any(min.max(1));
        let mut state = self.wait(self.lock(), want.clone(), Instant::now() + timeout);
        if !state.satisfied(&want) && !timeout.is_zero() {
            return (Vec::new(), false);
        }
        let mut taken = Vec::with_capacity(max.min(state.results.len()));
        while taken.len() < max {
            let Some(index) = state.order.pop_front() else { break };
            taken.extend(state.results.remove(&index));
        }
        self.taken_from(state);
        (taken, true)
    }

    /// The results of a range of indices, in order.
    pub fn take(&self, range: Range<u64>, timeout: Duration) -> Result<Vec<Completed>, TakeError> {
        let mut state = self.lock();
        let lowest = self.lowest.load(Acquire);
        let gone = |state: &State, i: u64| {
            let ended = i < lowest || state.finished.get((i - lowest) as usize) == Some(&true);
            i >= state.submitted || ended && !state.results.contains_key(&i)
        };
        if let Some(index) = range.clone().find(|i| gone(&state, *i)) {
            return Err(TakeError::Gone(index));
        }
        state = self.wait(state, Want::These(range.clone()), Instant::now() + timeout);
        if !range.clone().all(|i| state.results.contains_key(&i)) {
            return Err(TakeError::NotYet);
        }
        let taken = range.map(|i| state.results.remove(&i).expect("just seen")).collect();
        if state.results.is_empty() {
            state.order.clear();
        } else if state.order.len() > 64 + 4 * state.results.len() {
            let State { order, results, .. } = &mut *state;
            order.retain(|i| results.contains_key(i));
        }
        self.taken_from(state);
        Ok(taken)
    }

    /// What was taken and could not be handed over is there again, before anything else.
    pub fn give_back(&self, taken: Vec<Completed>) {
        let mut state = self.lock();
        for completed in taken.into_iter().rev() {
            state.order.push_front(completed.index);
            state.results.insert(completed.index, completed);
        }
        if state.wants.iter().any(|(_, want)| state.satisfied(want)) {
            self.changed.notify_all();
        }
    }

    /// With nothing left to take, the first unfinished request is due, also when what was taken held none of the budget.
    fn taken_from(&self, state: MutexGuard<'_, State>) {
        let empty = state.results.is_empty() && state.finished_count < state.submitted;
        drop(state);
        if empty {
            self.client.budget.nudge();
        }
    }

    pub fn ready(&self, index: u64) -> bool {
        self.lock().results.contains_key(&index)
    }

    pub fn unfinished(&self) -> u64 {
        let state = self.lock();
        state.submitted - state.finished_count
    }

    pub fn untaken(&self) -> usize {
        self.lock().results.len()
    }

    /// What has not started ends here; what runs is told.
    pub fn cancel(self: &Arc<Self>, range: Option<Range<u64>>) {
        let mut dropped = Vec::new();
        // What will be submitted later is not meant, and what has ended need not be remembered.
        let submitted = self.lock().submitted;
        let range = range.map(|r| r.start..r.end.min(submitted));
        {
            let mut pending = self.pending.lock().unwrap_or_else(|e| e.into_inner());
            match &range {
                None => self.cancelled_all.store(true, Release),
                Some(range) => {
                    let lowest = self.lowest.load(Acquire);
                    let mut cancelled = self.cancelled.lock().unwrap_or_else(|e| e.into_inner());
                    cancelled.retain(|r| r.end > lowest);
                    cancelled.push(range.clone());
                    self.any_cancelled.store(true, Release);
                }
            }
            let hit = |p: &Pending| range.as_ref().is_none_or(|r| r.contains(&p.index()));
            for item in std::mem::take(&mut *pending) {
                if hit(&item) {
                    dropped.push(item);
                } else {
                    pending.push_back(item);
                }
            }
        }
        self.end_unstarted(dropped, cancelled);
        self.engine.cancel_running();
    }

    /// Ends what has not started; why, says `failure` of operation and target.
    pub fn fail_pending(&self, failure: impl Fn(&'static str, &Target) -> Failure) {
        let pending = std::mem::take(&mut *self.pending.lock().unwrap_or_else(|e| e.into_inner()));
        self.end_unstarted(pending, failure);
    }

    /// Ends what no lane has or will get.
    fn end_unstarted(
        &self,
        dropped: impl IntoIterator<Item = Pending>,
        failure: impl Fn(&'static str, &Target) -> Failure,
    ) {
        let mut ended = Vec::new();
        for item in dropped {
            match item {
                Pending::Job(Job { ticket, .. }) => {
                    let failure = failure(ticket.operation, &ticket.target);
                    ended.push(ticket.fail(failure));
                }
                // Pieces in flight end the assembly; with none there is nobody else to do it.
                Pending::Split(assembly) => ended.extend(assembly.call_off(failure("GetObject", &assembly.target))),
            }
        }
        if self.complete(ended.into_iter()) {
            self.client.budget.nudge(); // another request is the head now
        }
    }

    /// Cancels everything and waits until no request of this queue touches memory; untaken results are dropped.
    pub fn close(self: &Arc<Self>) {
        {
            let _pending = self.pending.lock().unwrap_or_else(|e| e.into_inner());
            self.cancelled_all.store(true, Release); // from here on nothing that is submitted starts
        }
        let mut state = self.lock();
        if state.finished_count < state.submitted {
            drop(state);
            self.cancel(None);
            state = self.lock();
        }
        while state.finished_count < state.submitted {
            // Lanes look at cancellations when woken; should one ever miss that, ask again rather than wait for ever.
            let (back, timeout) = self.changed_or(state, Duration::from_millis(500));
            state = back;
            if timeout {
                self.engine.cancel_running();
            }
        }
        let results = std::mem::take(&mut state.results);
        state.order.clear();
        drop(state);
        drop(results);
    }

    fn changed_or<'a>(&'a self, mut state: MutexGuard<'a, State>, time: Duration) -> (MutexGuard<'a, State>, bool) {
        let id = state.next_want;
        state.next_want += 1;
        state.wants.push((id, Want::Any(usize::MAX)));
        let (mut state, result) = self.changed.wait_timeout(state, time).unwrap_or_else(|e| e.into_inner());
        state.wants.retain(|(other, _)| *other != id);
        (state, result.timed_out())
    }
}

fn cancelled(operation: &'static str, target: &Target) -> Failure {
    Failure::new(Kind::Cancelled, operation, &target.route.bucket, &target.key, "cancelled")
}
