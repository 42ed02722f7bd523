//! One engine thread: an event loop with its own connections. It takes work from the scheduler while it has room, and hands
//! results over in batches, when there is nothing else to do.
use crate::budget::Grant;
use crate::client::Client;
use crate::connect::Connections;
use crate::engine::Engine;
use crate::queue::{Completed, Queue};
use crate::request::{Job, Outcome};
use crate::sign::Signer;
use crate::slot::Slot;
use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::Ordering::*;
use std::time::{Duration, Instant};

/// So many results are handed over even while there is more to do.
const HAND_OVER: usize = 32;
/// How often deadlines are looked at.
pub const WATCH: Duration = Duration::from_millis(100);
const HOUSEKEEP: Duration = Duration::from_secs(5);
/// Large transfers begin with so few connections a lane and double while the lane has time to spare: on a fast network a few
/// saturate a core, and more would only thrash its caches; where each is slow, all that are allowed run within milliseconds.
const LARGE_AT_FIRST: usize = 4;
const RAMP: Duration = Duration::from_millis(2);

thread_local! {
    static OUTBOX: RefCell<Vec<(Arc<Queue>, Completed)>> = const { RefCell::new(Vec::new()) };
    /// Time spent waiting for events, and since when.
    static IDLE: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    static PARKED: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// One for each client and region: a signer keeps one day's key.
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
    /// Something was pending when this lane last looked, and could not start.
    pub held: Cell<bool>,
    /// The last submission for which this lane, having no room, woke the next.
    pub passed_on: Cell<u64>,
    random: Cell<u64>,
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
            held: Cell::new(false),
            passed_on: Cell::new(0),
            random: Cell::new(seed ^ (number as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1),
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
    pub fn finish(&self, queue: Arc<Queue>, index: u64, outcome: Outcome, grant: Option<Grant>) {
        let full = OUTBOX.with_borrow_mut(|outbox| {
            outbox.push((queue, Completed { index, outcome, grant }));
            outbox.len() >= HAND_OVER
        });
        if full {
            hand_over();
        }
    }
}

/// Moves what the lane has finished to the queues.
pub fn hand_over() {
    let finished = OUTBOX.take();
    let mut rest = finished.into_iter().peekable();
    while let Some((queue, first)) = rest.next() {
        let mut batch = vec![first];
        while let Some((_, next)) = rest.next_if(|(other, _)| Arc::ptr_eq(other, &queue)) {
            batch.push(next);
        }
        if queue.complete(batch.into_iter()) {
            queue.client.budget.nudge(); // another request is the head now
        }
    }
}

/// The event loop of a lane; made by whoever starts the engine, since it may fail.
pub fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(4)
        .thread_name("s3dataset-aux")
        .on_thread_park(|| {
            hand_over();
            PARKED.set(Some(Instant::now()));
        })
        .on_thread_unpark(|| {
            if let Some(since) = PARKED.take() {
                IDLE.set(IDLE.get() + since.elapsed());
            }
        })
        .build()
}

pub fn run(engine: Arc<Engine>, number: usize, runtime: &tokio::runtime::Runtime) {
    crate::raw::block_signals();
    let lane = Lane::new(engine, number, Connections::default(), Signers::default());
    let local = tokio::task::LocalSet::new();
    local.block_on(runtime, work(lane));
}

async fn work(lane: Rc<Lane>) {
    let (mut watched, mut kept) = (Instant::now(), Instant::now());
    let (mut cancellations, mut closings) = (0, 0);
    // Since when the ramp holds transfers back, and how long the lane had idled by then.
    let mut ramp: Option<(Instant, Duration)> = None;
    loop {
        while let Some((job, running)) = lane.engine.pull(&lane) {
            tokio::task::spawn_local(serve(lane.clone(), job, running));
        }
        let ramping = lane.ramp_waits.get();
        let busy = lane.running.borrow().iter().any(|(_, n)| *n > 0);
        let pause = if ramping {
            RAMP
        } else if busy || lane.held.get() {
            WATCH
        } else {
            HOUSEKEEP
        };
        let notified = lane.engine.lanes[lane.number].notified();
        let _woken_early = tokio::time::timeout(pause, notified).await.is_ok();
        let now = Instant::now();
        ramp = match ramp.filter(|_| ramping) {
            Some((since, idle)) if now - since >= RAMP => {
                if (IDLE.get() - idle) * 2 > now - since {
                    lane.large_allowed.set(lane.large_allowed.get() * 2);
                }
                None
            }
            None if ramping => Some((now, IDLE.get())),
            other => other,
        };
        let seen = lane.engine.cancellations();
        if seen != cancellations || now - watched >= WATCH {
            (cancellations, watched) = (seen, now);
            lane.watch(now);
        }
        let closed = lane.engine.closings();
        if closed != closings {
            closings = closed;
            part(&lane);
        }
        if now - kept >= HOUSEKEEP {
            kept = now;
            housekeep(&lane);
        }
    }
}

/// Clients were closed: their sockets go now.
fn part(lane: &Lane) {
    lane.connections.keep_clients(|client| lane.engine.is_open(client));
    lane.signers.borrow_mut().retain(|(client, ..)| lane.engine.is_open(*client));
    if lane.number == 0 {
        lane.engine.callers.keep_clients(|client| lane.engine.is_open(client));
    }
}

fn housekeep(lane: &Lane) {
    lane.connections.close_idle(Instant::now(), |client| lane.engine.connection_closed(client));
    if lane.number == 0 {
        lane.engine.callers.close_idle(Instant::now(), |client| lane.engine.connection_closed(client));
        lane.engine.pool.trim();
    }
}

/// Serves a job, and then others while there are any: a task for each connection in use, not for each request.
async fn serve(lane: Rc<Lane>, job: Job, running: Running) {
    let mut next = Some((job, running));
    while let Some((job, running)) = next {
        crate::attempt::run(&lane, job, &running).await;
        drop(running);
        next = lane.engine.pull(&lane);
    }
}
