//! One engine thread: an event loop with its own connections. It takes work from the scheduler while it has room, and hands
//! results over in batches, when there is nothing else to do.
use crate::client::Client;
use crate::connect::Connections;
use crate::engine::Engine;
use crate::failure::{Fault, Kind, Retry};
use crate::queue::Queue;
use crate::sign::Signer;
use crate::slot::Slot;
use crate::ticket::Finished;
use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::*};
use std::time::{Duration, Instant};

mod descriptors;
mod event_loop;
#[cfg(test)]
mod tests;

#[cfg(any(test, fuzzing))]
pub use event_loop::serve;
pub use event_loop::{EventLoop, WATCH};

/// So many results are handed over even while there is more to do.
const HAND_OVER: usize = 32;
/// Large transfers begin with so few connections a lane and double every few milliseconds while the lane has time to spare: on a fast network a few
/// saturate a core, and more would only thrash its caches; where each is slow, all that are allowed run within milliseconds.
const LARGE_AT_FIRST: usize = 4;

thread_local! {
    static OUTBOX: RefCell<Vec<Finished>> = const { RefCell::new(Vec::new()) };
}

/// One for each client and region, or directory bucket: a signer keeps one day's key.
pub type Signers = RefCell<Vec<(u64, String, Signer)>>;

pub struct Lane {
    pub engine: Arc<Engine>,
    pub number: usize,
    pub connections: Connections,
    signers: Signers,
    slots: RefCell<Vec<Weak<Slot>>>,
    pub running: RefCell<Vec<(u64, usize)>>,
    pub large_running: Cell<usize>,
    pub large_allowed: Cell<usize>,
    /// More large transfers wait, and only the ramp holds them back.
    pub ramp_waits: Cell<bool>,
    /// Of the running requests, how many wait because a service asked for less.
    pub aside: AtomicUsize,
    /// Something was pending when this lane last looked, and could not start.
    pub held: Cell<bool>,
    /// The last submission for which this lane, having no room, woke the next.
    pub passed_on: Cell<u64>,
    random: Cell<u64>,
    /// Other threads that read the memory of requests running here.
    elsewhere: Arc<AtomicUsize>,
}

/// What a running job occupies; freed when this dies.
pub struct Running {
    lane: Rc<Lane>,
    client: Arc<Client>,
    large: Cell<bool>,
}

impl Running {
    pub fn new(lane: &Rc<Lane>, client: &Arc<Client>, large: bool) -> Running {
        client.in_flight.fetch_add(1, Relaxed);
        lane.count(client.id, 1);
        let running = Running { lane: lane.clone(), client: client.clone(), large: Cell::new(false) };
        running.set_large(large);
        running
    }

    pub fn set_large(&self, large: bool) {
        if large && !self.large.replace(true) {
            self.client.large_in_flight.fetch_add(1, Relaxed);
            self.lane.large_running.set(self.lane.large_running.get() + 1);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.client.in_flight.fetch_sub(1, Relaxed);
        self.lane.count(self.client.id, -1);
        if self.large.get() {
            self.client.large_in_flight.fetch_sub(1, Relaxed);
            self.lane.large_running.set(self.lane.large_running.get() - 1);
            if self.lane.large_running.get() == 0 {
                self.lane.large_allowed.set(LARGE_AT_FIRST);
            }
        }
    }
}

impl Lane {
    pub fn new(engine: Arc<Engine>, number: usize, connections: Connections, signers: Signers) -> Rc<Lane> {
        let seed =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(1, |d| d.as_nanos() as u64);
        Rc::new(Lane {
            engine,
            number,
            connections,
            signers,
            slots: RefCell::default(),
            running: RefCell::default(),
            large_running: Cell::new(0),
            large_allowed: Cell::new(LARGE_AT_FIRST),
            ramp_waits: Cell::new(false),
            aside: AtomicUsize::new(0),
            held: Cell::new(false),
            passed_on: Cell::new(0),
            elsewhere: Arc::default(),
            random: Cell::new(seed ^ (number as u64).wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1),
        })
    }

    fn count(&self, client: u64, by: isize) {
        let mut running = self.running.borrow_mut();
        match running.iter_mut().find(|(id, _)| *id == client) {
            Some((_, n)) => *n = n.wrapping_add_signed(by),
            None => running.push((client, by as usize)),
        }
        if by < 0 && running.len() > 8 {
            running.retain(|(_, n)| *n > 0);
        }
    }

    pub fn running_of(&self, client: u64) -> usize {
        self.running.borrow().iter().find(|(id, _)| *id == client).map_or(0, |(_, n)| *n)
    }

    /// In [0, 1); for backoff, not for secrets.
    pub fn random(&self) -> f64 {
        let mut x = self.random.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.random.set(x);
        (x >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn with_signer<T>(&self, client: u64, region: &str, f: impl FnOnce(&mut Signer) -> T) -> T {
        let mut signers = self.signers.borrow_mut();
        if let Some((_, _, signer)) = signers.iter_mut().find(|(id, r, _)| *id == client && r == region) {
            return f(signer);
        }
        signers.truncate(63);
        signers.insert(0, (client, region.to_owned(), Signer::new()));
        f(&mut signers[0].2)
    }

    pub fn slot(&self, queue: &Arc<Queue>, index: u64) -> Rc<Slot> {
        let slot = Rc::new(Slot::new(queue.clone(), index));
        self.slots.borrow_mut().push(Rc::downgrade(&slot));
        slot
    }

    /// Calls `f` on another thread, so that the sockets of this one are served meanwhile.
    pub async fn elsewhere<T: Send + 'static>(&self, f: impl FnOnce() -> T + Send + 'static) -> Result<T, Fault> {
        let counted = Counted::new(&self.elsewhere);
        let work = move || {
            let _counted = counted;
            f()
        };
        let failed = |e: tokio::task::JoinError| Fault::new(Kind::Internal, Retry::Never, e.to_string());
        tokio::task::spawn_blocking(work).await.map_err(failed)
    }

    /// Before what runs here is dropped: nobody may read memory of requests that have ended.
    fn wait_for_elsewhere(&self) {
        while self.elsewhere.load(Acquire) > 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// What another lane can go on with.
    pub fn into_parts(self) -> (Connections, Signers) {
        (self.connections, self.signers)
    }

    /// Looks at deadlines and cancellations.
    pub fn watch(&self, now: Instant) {
        self.slots.borrow_mut().retain(|weak| match weak.upgrade() {
            Some(slot) => {
                slot.watch(now);
                true
            }
            None => false,
        });
    }

    /// Files a result; it is handed over with others, at the latest when the lane has nothing else to do.
    pub fn finish(&self, finished: Finished) {
        let full = OUTBOX.with_borrow_mut(|outbox| {
            outbox.push(finished);
            outbox.len() >= HAND_OVER
        });
        if full {
            hand_over();
        }
    }
}

/// Counts while it lives.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(count: &Arc<AtomicUsize>) -> Counted {
        count.fetch_add(1, AcqRel);
        Counted(count.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, AcqRel);
    }
}

/// Moves what the lane has finished to the queues.
pub fn hand_over() {
    let mut rest = OUTBOX.take().into_iter().peekable();
    while let Some(first) = rest.next() {
        let queue = first.ticket.queue().clone();
        let mut batch = vec![first];
        while let Some(next) = rest.next_if(|other| Arc::ptr_eq(other.ticket.queue(), &queue)) {
            batch.push(next);
        }
        queue.engine.trip("hand over");
        if queue.complete(batch.into_iter()) {
            queue.client.budget.nudge(); // another request is the head now
        }
    }
}
