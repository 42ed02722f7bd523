//! What threads do to a queue, its budget and its assemblies, in every order (`make model`): nobody waits for ever, and each request
//! ends once. A lost wake-up shows as a deadlock, since time does not pass here: real lanes look again by themselves after 100 ms.
use crate::assembly::{Assembly, AssemblyState};
use crate::budget::Budget;
use crate::client::{Client, Route};
use crate::connect::Connections;
use crate::engine::{Engine, Task};
use crate::failure::{Failure, Kind};
use crate::lane::{Lane, Signers};
use crate::queue::{Completed, Pending, Queue};
use crate::raw::Span;
use crate::request::{Check, Fetch, Job, Op, Outcome, Target, What};
use crate::sync::Notify;
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering::*};
use crate::ticket::Ticket;
use crate::trials::settings;
use loom::thread;
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(3600);

/// With so many switches between threads that nothing but chance brings about; most faults of this kind need two.
fn explore(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 20_000;
    builder.check(model);
}

struct Alarm(Notify);

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }
}

#[test]
fn whoever_was_refused_is_woken() {
    explore(3, || {
        let alarm = Arc::new(Alarm(Notify::new()));
        let rings = alarm.clone();
        let budget = Budget::new(10, Box::new(move || rings.0.notify_one()));
        let held = [6, 4].map(|bytes| budget.try_acquire(bytes).unwrap());
        let threads = held.map(|grant| thread::spawn(move || drop(grant)));
        while budget.try_acquire(8).is_none() {
            alarm.0.wait();
        }
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(budget.used(), 0);
    });
}

#[test]
fn tasks_that_wait_for_room_are_woken() {
    explore(3, || {
        let budget = Budget::new(10, Box::new(|| ()));
        let held = budget.try_acquire(10).unwrap();
        let tasks = [7, 8].map(|bytes| {
            let budget = budget.clone();
            thread::spawn(move || {
                let alarm = Arc::new(Alarm(Notify::new()));
                let waker = Waker::from(alarm.clone());
                while budget.acquire_or_wake(bytes, &waker, || false).is_none() {
                    alarm.0.wait();
                }
            })
        });
        drop(held);
        for task in tasks {
            task.join().unwrap();
        }
        assert_eq!(budget.used(), 0);
    });
}

const FAILS: u64 = 7;

struct World {
    queue: Arc<Queue>,
    target: Target,
    lanes: Vec<thread::JoinHandle<()>>,
    over: Arc<AtomicBool>,
}

impl World {
    /// Lanes that serve requests in no time, and have those of `FAILS` bytes fail. `limit`: of the byte budget.
    fn new(lanes: usize, limit: usize) -> World {
        let engine = Engine::idle(lanes, limit);
        let client = Client::new(settings(), None, engine.budget.clone());
        let queue = Queue::new(engine.clone(), Arc::new(client));
        let route = Route::new("b".into(), false, "h".into(), None, String::new(), "us-east-1".into(), "s3".into());
        let target = Target { route: Arc::new(route), key: "k".into(), version: None };
        let over = Arc::new(AtomicBool::new(false));
        let lanes = (0..lanes).map(|number| {
            let (engine, over) = (engine.clone(), over.clone());
            thread::spawn(move || lane(&engine, number, &over))
        });
        World { lanes: lanes.collect(), queue, target, over }
    }

    fn submit(&self, sizes: &[u64]) {
        self.queue.submit(sizes.len(), |index| Pending::Job(self.job(index, sizes[index as usize])));
    }

    fn job(&self, index: u64, size: u64) -> Job {
        let fetch =
            Fetch { what: What::Whole, size: Some(size), limit: u64::MAX, pin: None, into: None, check: Check::Usual };
        Job::new(self.queue.clone(), index, self.target.clone(), Op::Fetch(fetch))
    }

    fn end(self) {
        assert_eq!(self.queue.unfinished(), 0);
        self.over.store(true, Release);
        self.queue.engine.lanes.iter().for_each(|lane| lane.notify_one());
        self.lanes.into_iter().for_each(|lane| lane.join().unwrap());
        assert_eq!(self.queue.client.budget.used(), 0);
        self.queue.engine.fail_pending("it is over"); // no queue stays in the ring
    }
}

fn lane(engine: &Arc<Engine>, number: usize, over: &AtomicBool) {
    let lane = Lane::new(engine.clone(), number, Connections::default(), Signers::default());
    loop {
        while let Some((task, running)) = engine.pull(&lane) {
            match task {
                Task::Job(Job { op: Op::Fetch(Fetch { size: Some(FAILS), .. }), ticket, .. }) => {
                    ticket.fail(Failure::new(Kind::NotFound, "GetObject", "b", "k", "it is not there")).file();
                }
                Task::Job(Job { ticket, grant, .. }) => ticket.finish(reply(), grant).file(),
                Task::Part(part) => {
                    if let Some(finished) = part.end(Ok(1)) {
                        finished.file();
                    }
                }
            }
            drop(running);
        }
        if over.load(Acquire) {
            return;
        }
        engine.lanes[number].wait();
    }
}

fn reply() -> Outcome {
    Outcome::Reply(Box::default())
}

fn succeeded(taken: &[Completed]) -> usize {
    taken.iter().filter(|completed| !matches!(completed.outcome, Outcome::Failure(_))).count()
}

#[test]
fn what_is_submitted_is_served_and_whoever_waits_hears_of_it() {
    explore(3, || {
        let world = World::new(1, 100);
        world.submit(&[8, 8]);
        let taken = world.queue.take(0..2, LONG).unwrap();
        assert_eq!(succeeded(&taken), 2);
        drop(taken);
        world.end();
    });
}

#[test]
fn two_lanes_serve_what_is_submitted() {
    explore(2, || {
        let world = World::new(2, 100);
        world.submit(&[8]);
        let (taken, all) = world.queue.next(1, 9, LONG);
        assert!(all && taken.len() == 1);
        drop(taken);
        world.end();
    });
}

#[test]
fn results_that_are_taken_make_room() {
    explore(2, || {
        let world = World::new(1, 10);
        world.submit(&[8, 8]);
        for index in [0, 1] {
            assert_eq!(succeeded(&world.queue.take(index..index + 1, LONG).unwrap()), 1);
        }
        world.end();
    });
}

#[test]
fn whoever_wants_more_than_the_budget_holds_gets_it() {
    explore(2, || {
        let world = World::new(1, 10);
        world.submit(&[8, 8]);
        let (taken, all) = world.queue.next(2, 2, LONG);
        assert!(all && succeeded(&taken) == 2);
        drop(taken);
        world.end();
    });
}

#[test]
fn the_head_goes_on_beside_another_queue_that_holds_the_budget() {
    explore(2, || {
        let world = World::new(1, 10);
        let other = world.queue.client.budget.try_acquire(10).unwrap();
        let elsewhere = thread::spawn(move || drop(other));
        world.submit(&[8]);
        assert_eq!(succeeded(&world.queue.take(0..1, LONG).unwrap()), 1);
        elsewhere.join().unwrap();
        world.end();
    });
}

#[test]
fn a_failure_that_is_taken_lets_the_next_start() {
    explore(2, || {
        let world = World::new(1, 10);
        let other = world.queue.client.budget.try_acquire(10).unwrap(); // held all the time
        world.submit(&[FAILS, 8]);
        assert_eq!(succeeded(&world.queue.take(0..1, LONG).unwrap()), 0);
        assert_eq!(succeeded(&world.queue.next(1, 1, LONG).0), 1);
        drop(other);
        world.end();
    });
}

#[test]
fn cancelled_requests_end_once() {
    explore(2, || {
        let world = World::new(1, 100);
        world.submit(&[8, 8]);
        let queue = world.queue.clone();
        let canceller = thread::spawn(move || queue.cancel(None));
        let taken = world.queue.take(0..2, LONG).unwrap();
        assert_eq!(taken.len(), 2);
        canceller.join().unwrap();
        assert_eq!((world.queue.unfinished(), world.queue.untaken()), (0, 0));
        drop(taken);
        world.end();
    });
}

#[test]
fn nothing_waits_behind_a_close() {
    explore(3, || {
        let world = World::new(0, 100);
        let queue = world.queue.clone();
        let closer = thread::spawn(move || queue.close());
        world.submit(&[8]); // before it, and it ends that; or behind it, and it ends at once
        closer.join().unwrap();
        world.end();
    });
}

#[test]
fn a_request_that_is_dropped_ends_as_lost() {
    explore(3, || {
        let world = World::new(0, 100);
        let queue = world.queue.clone();
        queue.submit(1, |index| Pending::Job(world.job(index, 8)));
        let job = queue.pending.lock().unwrap().pop_front();
        let dropper = thread::spawn(move || drop(job));
        let taken = queue.take(0..1, LONG).unwrap();
        assert!(matches!(&taken[0].outcome, Outcome::Failure(failure) if failure.kind == Kind::Internal));
        dropper.join().unwrap();
        drop(taken);
        world.end();
    });
}

/// Threads fetch the parts of one result while another calls it off, and one of them panics: whoever ends the last brings the
/// result, when nobody writes any more.
#[test]
fn the_last_part_brings_the_result() {
    static MEMORY: [u8; 3] = [0; 3];
    for (calls_off, drops) in [(false, false), (true, false), (false, true), (true, true)] {
        explore(2, move || {
            let world = World::new(0, 100);
            let queue = world.queue.clone();
            let mut assembly = None;
            queue.submit(1, |index| {
                let ticket = Ticket::new(queue.clone(), index, world.target.clone(), "GetObject");
                let state = AssemblyState::default();
                let made = Assembly::new(ticket, Span::of_static(&MEMORY), 0, 1, None, Check::Usual, state).0;
                assembly = Some(made.clone());
                Pending::Split(made)
            });
            let assembly = assembly.unwrap();
            let (writing, brought) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
            let fetchers = [0, 1].map(|number| {
                let (assembly, writing, brought) = (assembly.clone(), writing.clone(), brought.clone());
                thread::spawn(move || {
                    while let Some(part) = assembly.next_part() {
                        writing.fetch_add(1, AcqRel);
                        writing.fetch_sub(1, AcqRel);
                        if number == 0 && drops {
                            drop(part);
                        } else if let Some(finished) = part.end(Ok(1)) {
                            assert_eq!(writing.load(Acquire), 0, "somebody writes to memory that is handed over");
                            brought.fetch_add(1, AcqRel);
                            finished.file();
                        }
                    }
                })
            });
            if calls_off {
                queue.cancel(None);
            }
            let taken = queue.take(0..1, LONG).unwrap();
            assert_eq!((taken.len(), writing.load(Acquire)), (1, 0));
            for fetcher in fetchers {
                fetcher.join().unwrap();
            }
            assert_eq!((queue.unfinished(), queue.untaken()), (0, 0));
            assert!(brought.load(Acquire) <= 1);
            assert!(assembly.lock().ticket.is_none());
            assert!(assembly.call_off(Failure::new(Kind::Cancelled, "GetObject", "b", "k", "late")).is_none());
            drop(taken);
            world.end();
        });
    }
}
