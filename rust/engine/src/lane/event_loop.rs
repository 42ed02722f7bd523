//! What a lane's thread does: pull work, look at deadlines, keep house; and to begin anew after a panic.
use super::{Lane, Signers, hand_over};
use crate::attempt::{catch_unwind, text_of};
use crate::connect::Connections;
use crate::engine::{Engine, Task};
use crate::lane::Running;
use crate::raw::{SocketEntry, hold_forks};
use std::cell::Cell;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};
use tokio::task::LocalSet;

/// How often deadlines are looked at.
pub const WATCH: Duration = Duration::from_millis(20);
const HOUSEKEEP: Duration = if cfg!(test) { Duration::from_millis(50) } else { Duration::from_secs(5) };
/// Between two looks at whether more large transfers may run.
const RAMP: Duration = Duration::from_millis(2);
/// A lane that panics so often within a second meets what pends again and again: that ends as failed, and the lane goes on.
const PANICS: usize = 8;

thread_local! {
    /// Time spent waiting for events, and since when.
    static IDLE: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    static PARKED: Cell<Option<Instant>> = const { Cell::new(None) };
}

pub struct EventLoop {
    /// Dropped before they are closed: their numbers may be other files' at once.
    _descriptors: Vec<SocketEntry>,
    runtime: Runtime,
}

impl EventLoop {
    /// Made by whoever starts the engine, since it may fail.
    pub fn new(engine: &Arc<Engine>) -> std::io::Result<EventLoop> {
        let engine = engine.clone();
        let _hold = hold_forks();
        let runtime = Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .max_blocking_threads(4)
            .thread_name("s3dataset-aux")
            .on_thread_park(move || {
                engine.trip("park");
                // A panic here would take tokio's driver with it; what it lost says so by its ticket.
                let _ = std::panic::catch_unwind(AssertUnwindSafe(hand_over));
                PARKED.set(Some(Instant::now()));
            })
            .on_thread_unpark(|| {
                if let Some(since) = PARKED.take() {
                    IDLE.set(IDLE.get() + since.elapsed());
                }
            })
            .build()?;
        Ok(EventLoop { _descriptors: super::descriptors::of(&runtime), runtime })
    }

    /// Runs one future to its end, and what it begins meanwhile.
    pub fn attend<T>(&self, future: impl Future<Output = T>) -> T {
        LocalSet::new().block_on(&self.runtime, future)
    }

    /// Runs as long as the process.
    pub fn run(mut self, engine: &Arc<Engine>, number: usize) {
        crate::raw::block_signals();
        loop {
            let lane = Lane::new(engine.clone(), number, Connections::default(), Signers::default());
            let local = LocalSet::new();
            let attended = || local.block_on(&self.runtime, supervise(&lane));
            let Err(panic) = std::panic::catch_unwind(AssertUnwindSafe(attended)) else { return };
            // tokio itself panicked: it is replaced. The requests that ran here are dropped, which ends them.
            let text = text_of(panic);
            lane.wait_for_elsewhere();
            let _ = std::panic::catch_unwind(AssertUnwindSafe(|| drop(local)));
            lane.connections.close_idle(None, |client| engine.connection_closed(client));
            hand_over();
            engine.fail_pending(&text);
            self = loop {
                std::thread::sleep(Duration::from_millis(10));
                if let Ok(fresh) = EventLoop::new(engine) {
                    break fresh;
                }
            };
        }
    }
}

/// `work`, again after each panic: what runs beside it on this lane goes on meanwhile.
async fn supervise(lane: &Rc<Lane>) {
    let mut panics: Vec<Instant> = Vec::new();
    loop {
        let Err(text) = catch_unwind(work(lane)).await else { return };
        let now = Instant::now();
        panics.retain(|at| now - *at < Duration::from_secs(1));
        panics.push(now);
        if panics.len() >= PANICS {
            panics.clear();
            lane.engine.fail_pending(&text);
        }
        tokio::task::yield_now().await;
    }
}

async fn work(lane: &Rc<Lane>) {
    let (mut watched, mut kept) = (Instant::now(), Instant::now());
    let (mut cancellations, mut closings) = (0, 0);
    // Since when the ramp holds transfers back, and how long the lane had idled by then.
    let mut ramp: Option<(Instant, Duration)> = None;
    loop {
        lane.engine.trip("work");
        while let Some((task, running)) = lane.engine.pull(lane) {
            tokio::task::spawn_local(serve(lane.clone(), task, running));
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
            part(lane);
        }
        if now - kept >= HOUSEKEEP {
            kept = now;
            housekeep(lane);
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
    lane.engine.trip("housekeep");
    lane.connections.close_idle(Some(Instant::now()), |client| lane.engine.connection_closed(client));
    if lane.number == 0 {
        lane.engine.callers.close_idle(Instant::now(), |client| lane.engine.connection_closed(client));
        lane.engine.pool.trim();
    }
}

/// Serves a job, and then others while there are any: a task for each connection in use, not for each request.
pub async fn serve(lane: Rc<Lane>, task: Task, running: Running) {
    let _wake = WakeAfterPanic(&lane);
    let mut next = Some((task, running));
    while let Some((task, running)) = next {
        match task {
            Task::Job(job) => crate::attempt::run_job(&lane, job, &running).await,
            Task::Part(part) => crate::attempt::run_part(&lane, part).await,
        }
        drop(running);
        lane.engine.trip("serve");
        next = lane.engine.pull(&lane);
    }
}

/// tokio ends a task that panics, and nothing else: the lane has to look for work again.
struct WakeAfterPanic<'a>(&'a Lane);

impl Drop for WakeAfterPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.engine.lanes[self.0.number].notify_one();
        }
    }
}
