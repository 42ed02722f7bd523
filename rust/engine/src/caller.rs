//! Requests served on the thread that waits for them. Going to a lane and back costs two thread switches, on a quick network a
//! third of the time of a small request. Whoever has many in flight is better served by the lanes.
use crate::connect::Connections;
use crate::engine::Engine;
use crate::lane::{EventLoop, Lane, Running, Signers, WATCH, hand_over};
use crate::request::Job;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// Threads beyond so many at once use the lanes: an event loop holds three file descriptors.
const MOST: usize = 16;
/// Signals are looked at every 100 ms: it takes the interpreter's lock.
const LOOKS_A_SIGNAL: u32 = 5;
/// A caller is no lane: nobody notifies it, and it keeps no house.
const NUMBER: usize = usize::MAX;

/// Event loops that callers borrow.
#[derive(Default)]
pub struct Callers(Mutex<State>);

#[derive(Default)]
struct State {
    idle: Vec<Caller>,
    borrowed: usize,
}

/// An event loop, and what the next lane on it goes on with.
struct Caller {
    event_loop: EventLoop,
    connections: Connections,
    signers: Signers,
}

impl Caller {
    fn new(engine: &Arc<Engine>) -> std::io::Result<Caller> {
        let (connections, signers) = Default::default();
        Ok(Caller { event_loop: EventLoop::new(engine)?, connections, signers })
    }
}

/// A place among those that may borrow.
struct Place<'a>(&'a Callers);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.lock().borrowed -= 1;
    }
}

impl Callers {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn borrow(&self) -> Option<(Place<'_>, Option<Caller>)> {
        let mut state = self.lock();
        if state.borrowed >= MOST {
            return None;
        }
        state.borrowed += 1;
        Some((Place(self), state.idle.pop()))
    }

    fn put_back(&self, event_loop: EventLoop, lane: Rc<Lane>) {
        if let Ok(lane) = Rc::try_unwrap(lane) {
            let (connections, signers) = lane.into_parts();
            self.lock().idle.push(Caller { event_loop, connections, signers });
        }
    }

    /// Closes connections that have been idle for long; a lane looks after them, since callers come and go.
    pub fn close_idle(&self, now: Instant, closed: impl Fn(u64)) {
        self.lock().idle.iter().for_each(|caller| caller.connections.close_idle(Some(now), &closed));
    }

    /// Forgets clients that are closed.
    pub fn keep_clients(&self, is_open: impl Fn(u64) -> bool) {
        for caller in &self.lock().idle {
            caller.connections.keep_clients(&is_open);
            caller.signers.borrow_mut().retain(|(client, ..)| is_open(*client));
        }
    }
}

/// Serves a job to its end on this thread; gives it back where it would have to wait, or where lanes would do better.
pub fn serve(engine: &Arc<Engine>, job: Job, interrupted: impl FnMut() -> bool) -> Result<(), Job> {
    let Some((_place, idle)) = engine.callers.borrow() else { return Err(job) };
    // Without descriptors for another event loop the lanes still have theirs.
    let Some(caller) = idle.or_else(|| Caller::new(engine).ok()) else { return Err(job) };
    let Caller { event_loop, connections, signers } = caller;
    let lane = Lane::new(engine.clone(), NUMBER, connections, signers);
    let (job, running) = match engine.admit_at_caller(&lane, job) {
        Ok(admitted) => admitted,
        Err(job) => {
            engine.callers.put_back(event_loop, lane);
            return Err(job);
        }
    };
    let attended = || event_loop.attend(attend(&lane, job, running, interrupted));
    let whole = catch_unwind(AssertUnwindSafe(attended)).is_ok();
    hand_over();
    if whole {
        engine.callers.put_back(event_loop, lane);
    } // else tokio panicked, and is of no more use; the request, dropped, says so
    Ok(())
}

async fn attend(lane: &Rc<Lane>, job: Job, running: Running, mut interrupted: impl FnMut() -> bool) {
    let queue = job.ticket.queue().clone();
    let mut work = std::pin::pin!(crate::attempt::run_job(lane, job, &running));
    let mut looks = 0;
    while tokio::time::timeout(WATCH, &mut work).await.is_err() {
        looks += 1;
        if looks % LOOKS_A_SIGNAL == 0 && interrupted() {
            queue.cancel(None);
        }
        lane.watch(Instant::now());
    }
}
