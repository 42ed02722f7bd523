//! The engine of one process: its lanes, the queues that have work for them, and who may start now.
use crate::assembly::{Assembly, AssemblyState, Part};
use crate::budget::{Budget, Grant};
use crate::caller::Callers;
use crate::client::Client;
use crate::failure::Fault;
use crate::lane::{EventLoop, Lane, Running};
use crate::queue::{Pending, Queue};
use crate::raw::Pool;
use crate::request::{Fetch, Job, Op};
use crate::stats::RequestLog;
use crate::sync::atomic::{AtomicU64, Ordering::*};
use crate::sync::{Mutex, Notify};
use crate::ticket::broken;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::{Arc, OnceLock, Weak};

/// What a request of unknown size is admitted with; the rest is asked for when the answer tells.
const UNKNOWN: usize = 256 << 10;
/// From here on a transfer is large: few of them fill a network.
const LARGE: usize = 1 << 20;

pub struct Engine {
    pub lanes: Vec<Arc<Notify>>,
    pub pool: Arc<Pool>,
    pub budget: Arc<Budget>,
    pub log: RequestLog,
    pub callers: Callers,
    pub generation: u32,
    /// Queues with pending requests; the first is served next.
    ring: Mutex<VecDeque<Arc<Queue>>>,
    cancellations: AtomicU64,
    closings: AtomicU64,
    submissions: AtomicU64,
    clients: Mutex<HashMap<u64, Weak<Client>>>,
    /// The system's roots take milliseconds to load: at the first TLS connection, once.
    system_tls: OnceLock<Result<Arc<rustls::ClientConfig>, Fault>>,
    /// Where tests have it panic, and how often.
    #[cfg(test)]
    pub trips: std::sync::Mutex<Option<(&'static str, u32)>>,
}

/// What a lane is given to do.
pub enum Task {
    Job(Job),
    Part(Part),
}

/// Why nothing of a queue may start now.
enum Held {
    /// Until something of the client, the lane or the budget comes free.
    Back,
    /// Nothing is pending.
    Empty,
}

impl Engine {
    /// Without the lanes' threads.
    pub(crate) fn idle(lanes: usize, memory_limit: usize) -> Arc<Engine> {
        let notifies: Vec<_> = (0..lanes.max(1)).map(|_| Arc::new(Notify::new())).collect();
        Arc::new(Engine {
            budget: Budget::new(memory_limit, waker(&notifies)),
            lanes: notifies,
            // A quarter more than can be in flight, so that what goes out and comes back finds its place.
            pool: Arc::new(Pool::new(memory_limit / 4 * 5)),
            log: RequestLog::default(),
            callers: Callers::default(),
            generation: crate::raw::generation(),
            ring: Mutex::default(),
            cancellations: AtomicU64::new(0),
            closings: AtomicU64::new(0),
            submissions: AtomicU64::new(0),
            clients: Mutex::default(),
            system_tls: OnceLock::new(),
            #[cfg(test)]
            trips: Default::default(),
        })
    }

    /// Fails where the process may have no more file descriptors or threads.
    pub fn start(lanes: usize, memory_limit: usize) -> std::io::Result<Arc<Engine>> {
        let engine = Engine::idle(lanes, memory_limit);
        let loops = engine.lanes.iter().map(|_| EventLoop::new(&engine)).collect::<std::io::Result<Vec<_>>>()?;
        for (number, event_loop) in loops.into_iter().enumerate() {
            let of_lane = engine.clone();
            let thread = std::thread::Builder::new().name(format!("s3dataset-{number}"));
            thread.spawn(move || event_loop.run(&of_lane, number))?;
        }
        Ok(engine)
    }

    /// A budget of its own for a client that asked for one.
    pub fn new_budget(&self, limit: usize) -> Arc<Budget> {
        Budget::new(limit, waker(&self.lanes))
    }

    pub fn register(&self, client: &Arc<Client>) {
        self.clients.lock().unwrap_or_else(|e| e.into_inner()).insert(client.id, Arc::downgrade(client));
    }

    pub fn tls_of(&self, client: &Client) -> Result<Arc<rustls::ClientConfig>, Fault> {
        match &client.tls {
            Some(tls) => Ok(tls.clone()),
            None => self.system_tls.get_or_init(|| crate::connect::tls_config(None)).clone(),
        }
    }

    /// An idle connection of a client was closed.
    pub fn connection_closed(&self, client: u64) {
        let clients = self.clients.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(client) = clients.get(&client).and_then(Weak::upgrade) {
            client.stats.connections_open.fetch_sub(1, Relaxed);
        }
    }

    /// A client was closed or dropped: nobody will use its idle connections.
    pub fn forget(&self, client: u64) {
        self.clients.lock().unwrap_or_else(|e| e.into_inner()).remove(&client);
        self.closings.fetch_add(1, AcqRel);
        self.lanes.iter().for_each(|lane| lane.notify_one());
    }

    pub fn closings(&self) -> u64 {
        self.closings.load(Acquire)
    }

    pub fn is_open(&self, client: u64) -> bool {
        self.clients.lock().unwrap_or_else(|e| e.into_inner()).contains_key(&client)
    }

    pub fn enqueue(&self, queue: &Arc<Queue>, count: usize) {
        {
            let mut ring = self.ring.lock().unwrap_or_else(|e| e.into_inner());
            if !queue.in_ring.swap(true, AcqRel) {
                ring.push_back(queue.clone());
            }
        }
        self.submissions.fetch_add(1, Relaxed);
        // One request needs one lane; which is left to chance, so that single requests do not all meet on one.
        let first = queue.client.in_flight.load(Relaxed);
        for i in 0..count.min(self.lanes.len()) {
            self.lanes[(first + i) % self.lanes.len()].notify_one();
        }
    }

    pub fn cancel_running(&self) {
        self.cancellations.fetch_add(1, AcqRel);
        self.lanes.iter().for_each(|lane| lane.notify_one());
    }

    pub fn cancellations(&self) -> u64 {
        self.cancellations.load(Acquire)
    }

    /// Ends all that waits for a lane: lanes panic over it again and again.
    pub fn fail_pending(&self, text: &str) {
        let queues = {
            let mut ring = self.ring.lock().unwrap_or_else(|e| e.into_inner());
            // Before their requests are taken: what comes in between puts a queue back into the ring.
            ring.iter().for_each(|queue| queue.in_ring.store(false, Release));
            std::mem::take(&mut *ring)
        };
        for queue in queues {
            queue.fail_pending(|operation, target| broken(operation, target, text));
        }
    }

    /// A place where tests have the engine panic.
    #[cfg(test)]
    pub fn trip(&self, place: &str) {
        let mut trips = self.trips.lock().unwrap_or_else(|e| e.into_inner());
        if let Some((_, left)) = trips.as_mut().filter(|(at, left)| *at == place && *left > 0) {
            *left -= 1;
            drop(trips);
            panic!("tripped at {place}");
        }
    }

    #[cfg(not(test))]
    #[inline(always)]
    pub fn trip(&self, _place: &str) {}

    /// The next job that may start on this lane, taking queues in turn.
    pub fn pull(&self, lane: &Rc<Lane>) -> Option<(Task, Running)> {
        lane.ramp_waits.set(false);
        lane.held.set(false);
        self.trip("pull");
        let mut ring = self.ring.lock().unwrap_or_else(|e| e.into_inner());
        for _ in 0..ring.len() {
            ring.rotate_left(1);
            let queue = ring.back()?; // it stays there should this panic
            match self.pull_from(queue, lane) {
                Ok(found) => return Some(found),
                Err(Held::Back) => lane.held.set(true),
                Err(Held::Empty) => {
                    queue.in_ring.store(false, Release);
                    ring.pop_back();
                }
            }
        }
        drop(ring);
        // A single request wakes a single lane; one that has no room for it asks the next, once for each submission.
        let submissions = self.submissions.load(Relaxed);
        if lane.held.get() && self.lanes.len() > 1 && lane.passed_on.replace(submissions) != submissions {
            self.lanes[(lane.number + 1) % self.lanes.len()].notify_one();
        }
        None
    }

    /// Lets a job start on the thread of its caller, unless it had to wait or others would help.
    pub fn admit_at_caller(&self, lane: &Rc<Lane>, mut job: Job) -> Result<(Job, Running), Job> {
        let client = job.ticket.queue().client.clone();
        let bytes = job.transfer_bytes(client.settings.part_size);
        if job.is_split(client.settings.part_size) {
            return Err(job);
        }
        let _ring = self.ring.lock().unwrap_or_else(|e| e.into_inner()); // as lanes do, so that limits are kept
        let large = bytes >= LARGE;
        let full = client.in_flight.load(Relaxed)
            >= client.settings.max_connections.max(1) + client.aside.load(Relaxed)
            || job.pace().is_crowded()
            || large && client.large_in_flight.load(Relaxed) >= client.settings.large_in_flight.max(1);
        if full || client.waiting_for_budget.load(Relaxed) > 0 {
            return Err(job);
        }
        match job.budget_bytes() {
            0 => (),
            bytes => match client.budget.try_acquire(bytes) {
                Some(grant) => job.grant = Some(grant),
                None => return Err(job),
            },
        }
        let running = Running::new(lane, &client, large);
        Ok((job, running))
    }

    fn pull_from(&self, queue: &Arc<Queue>, lane: &Rc<Lane>) -> Result<(Task, Running), Held> {
        let client = &queue.client;
        let limit = client.settings.max_connections.max(1);
        let mut pending = queue.pending.lock().unwrap_or_else(|e| e.into_inner());
        while let Some(Pending::Split(assembly)) = pending.front() {
            if !assembly.exhausted() {
                break;
            }
            pending.pop_front();
        }
        let first = pending.front().ok_or(Held::Empty)?;
        if first.pace().is_crowded() {
            return Err(Held::Back);
        }
        let full = client.in_flight.load(Relaxed) >= limit + client.aside.load(Relaxed);
        if full || lane.running_of(client.id) >= limit.div_ceil(self.lanes.len()) + lane.aside.load(Relaxed) {
            // Requests that wait for the budget may wait for a caller who waits for this one: it goes beside them.
            if client.waiting_for_budget.load(Relaxed) == 0 || !queue.is_head(first.index()) {
                return Err(Held::Back);
            }
        }
        let bytes = match first {
            Pending::Split(assembly) => assembly.part_size.min(assembly.destination.len()),
            Pending::Job(job) => job.transfer_bytes(client.settings.part_size),
        };
        let large = bytes >= LARGE;
        if large {
            let allowed = client.settings.large_in_flight.max(1);
            if client.large_in_flight.load(Relaxed) >= allowed {
                return Err(Held::Back);
            }
            if lane.large_running.get() >= lane.large_allowed.get() {
                lane.ramp_waits.set(lane.large_allowed.get() < allowed);
                return Err(Held::Back);
            }
        }
        let task = match first {
            Pending::Split(assembly) => Task::Part(assembly.next_part().ok_or(Held::Back)?),
            Pending::Job(job) => {
                let grant = Self::admit(queue, job)?;
                let Some(Pending::Job(mut job)) = pending.pop_front() else { return Err(Held::Back) };
                job.grant = grant;
                self.trip("pulled");
                match self.split(job) {
                    Ok(job) => Task::Job(job),
                    Err(assembly) => {
                        let part = assembly.next_part();
                        pending.push_front(Pending::Split(assembly));
                        Task::Part(part.ok_or(Held::Back)?)
                    }
                }
            }
        };
        Ok((task, Running::new(lane, client, large)))
    }

    fn admit(queue: &Queue, job: &Job) -> Result<Option<Grant>, Held> {
        let bytes = job.budget_bytes();
        if bytes == 0 {
            return Ok(None);
        }
        let budget = &queue.client.budget;
        // Those with an answer in hand go first, else connections that wait for room would pile up.
        if queue.client.waiting_for_budget.load(Relaxed) > 0 && !queue.is_due(job.ticket.index) {
            return Err(Held::Back);
        }
        match budget.try_acquire(bytes) {
            Some(grant) => Ok(Some(grant)),
            None if queue.is_due(job.ticket.index) => Ok(Some(budget.acquire_forced(bytes))),
            None => Err(Held::Back),
        }
    }

    /// A fetch of known extent that is larger than two parts becomes parallel ranges into one memory.
    fn split(&self, mut job: Job) -> Result<Job, Arc<Assembly>> {
        let part_size = job.ticket.queue().client.settings.part_size;
        if !job.is_split(part_size) {
            return Ok(job);
        }
        let Op::Fetch(fetch) = &job.op else { return Ok(job) };
        let Some((start, end)) = fetch.extent() else { return Ok(job) };
        let len = (end - start) as usize;
        let (destination, buffer) = match fetch.into {
            Some(span) => (span, None),
            None => {
                // Without such memory the fetch goes on by itself: the answer may tell another size, or it fails there.
                let Some(buffer) = self.pool.take(len) else { return Ok(job) };
                (buffer.span(), Some(buffer))
            }
        };
        let state = AssemblyState {
            etag: fetch.pin.clone(),
            object_size: fetch.size.unwrap_or(0),
            buffer,
            grant: job.grant.take(),
            ..AssemblyState::default()
        };
        let whole = fetch.size == Some(end) && start == 0;
        let check = fetch.check_of(whole, job.ticket.queue().client.settings.verify_reads);
        Err(Assembly::new(job.ticket, destination, start, part_size, None, check, state).0)
    }
}

impl Job {
    /// Bytes of the budget that it starts with. A caller's own memory costs none.
    fn budget_bytes(&self) -> usize {
        let bytes = match &self.op {
            Op::Fetch(Fetch { into: Some(_), .. }) => 0,
            Op::Fetch(fetch) => match fetch.extent() {
                Some((start, end)) if fetch.size.is_some() => (end - start) as usize,
                Some((start, end)) => {
                    (end - start).min(2 * self.ticket.queue().client.settings.part_size as u64) as usize
                }
                None => UNKNOWN.min(fetch.limit as usize),
            },
            Op::Call(call) if call.kind == crate::request::CallKind::List => UNKNOWN,
            Op::Call(_) => 0,
        };
        bytes.min(crate::raw::MOST)
    }

    /// Whether it becomes parallel ranges at once. A range of an object of unknown size may end far behind it: there the
    /// first answer tells.
    fn is_split(&self, part_size: usize) -> bool {
        let Op::Fetch(fetch) = &self.op else { return false };
        let certain = fetch.size.is_some() || fetch.into.is_some();
        certain && fetch.extent().is_some_and(|(start, end)| (end - start) as usize > 2 * part_size)
    }

    /// Bytes that one request of it moves, as far as is known.
    fn transfer_bytes(&self, part_size: usize) -> usize {
        match &self.op {
            Op::Fetch(fetch) => fetch.extent().map_or(0, |(start, end)| ((end - start) as usize).min(part_size)),
            Op::Call(call) => call.payload.span().len(),
        }
    }
}

fn waker(lanes: &[Arc<Notify>]) -> Box<dyn Fn() + Send + Sync> {
    let lanes = lanes.to_vec();
    Box::new(move || lanes.iter().for_each(|lane| lane.notify_one()))
}
