//! Services that ask for less, and answers that do not begin.
use crate::server::{Bench, Server, Step, answer, error, says, settings, text};
use s3dataset_engine::client::Settings;
use s3dataset_engine::failure::Kind;
use s3dataset_engine::request::{Call, CallKind, Check, Fetch, Op, Outcome, What};
use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

fn whole() -> Op {
    Op::Fetch(Fetch { what: What::Whole, size: Some(1), limit: u64::MAX, pin: None, into: None, check: Check::Usual })
}

/// Answers as `choose` says of the number of requests that wait for an answer, this one among them, a little later.
fn answers(delay: Duration, choose: impl Fn(usize) -> String + Send + Sync + 'static) -> Step {
    let (waiting, choose) = (Arc::new(AtomicUsize::new(0)), Arc::new(choose));
    Box::new(move |_, c| {
        let (mut connection, waiting, choose) = (c.try_clone().unwrap(), waiting.clone(), choose.clone());
        let answer = choose(waiting.fetch_add(1, SeqCst) + 1);
        std::thread::spawn(move || {
            std::thread::sleep(delay);
            waiting.fetch_sub(1, SeqCst);
            let _ = connection.write_all(answer.as_bytes());
        });
        true
    })
}

fn slow_down() -> String {
    answer("503 Slow Down", "", "<Error><Code>SlowDown</Code></Error>")
}

fn take_all(bench: &Bench, count: u64) -> Vec<Outcome> {
    let taken = bench.queue.take(0..count, Duration::from_secs(60)).expect("in time");
    taken.into_iter().map(|c| c.outcome).collect()
}

#[test]
fn a_service_that_asks_for_less_gets_less() {
    // More than eight at once are too many for it.
    let steps = answers(Duration::from_millis(3), |n| if n > 8 { slow_down() } else { answer("200 OK", "", "x") });
    let server = Server::start(vec![steps]);
    let bench = Bench::new(server.port, Settings { max_connections: 64, max_attempts: 2, ..settings() }, 8 << 20);
    (0..2000).for_each(|_| assert!(bench.submit("k", whole()) < 2000));
    assert!(take_all(&bench, 2000).iter().all(|o| matches!(o, Outcome::Body(_))));
    let throttles = bench.client.stats.causes()["503 SlowDown"];
    assert!(throttles < 600, "{throttles} refusals for 2,000 requests");
}

#[test]
fn a_bucket_that_asks_for_less_holds_no_other_work_back() {
    let refuses = Server::start(vec![answers(Duration::from_millis(1), |_| slow_down())]);
    let bench = Bench::new(refuses.port, Settings { max_connections: 4, ..settings() }, 8 << 20);
    (0..50).for_each(|_| assert!(bench.submit("k", whole()) < 50));
    std::thread::sleep(Duration::from_millis(300));
    // Writes to the same bucket, and reads of another.
    let serves = Server::start(vec![says(answer("200 OK", "", "x"))]);
    let other = Bench::with(serves.port, bench.queue.engine.clone(), bench.client.clone());
    for _ in 0..20 {
        assert_eq!(text(&other.get(What::Whole, Some(1), None).unwrap()), "x");
    }
    bench.queue.close();
    assert_eq!(bench.client.in_flight.load(SeqCst), 0);
    assert_eq!(bench.client.aside.load(SeqCst), 0);
}

#[test]
fn those_who_wait_for_their_turn_do_not_wait_for_ever() {
    let server = Server::start(vec![answers(Duration::from_millis(1), |_| slow_down())]);
    let brief = Settings { retry_max_elapsed: Duration::from_millis(400), max_connections: 8, ..settings() };
    let bench = Bench::new(server.port, brief, 8 << 20);
    (0..40).for_each(|_| assert!(bench.submit("k", whole()) < 40));
    for outcome in take_all(&bench, 40) {
        assert!(matches!(outcome, Outcome::Failure(failure) if failure.kind == Kind::Throttled));
    }
    assert!(server.seen().len() < 200, "{}", server.seen().len());
    // A save has its own time.
    let server = Server::start(vec![error("503 Slow Down", "SlowDown"), says(answer("200 OK", "", ""))]);
    let saves = Settings { retry_max_elapsed: Duration::ZERO, max_attempts: 2, ..settings() };
    assert!(Bench::new(server.port, saves, 1 << 20).put(vec![1].into()).is_ok());
}

#[test]
fn an_unfinished_upload_is_removed_however_little_patience_there_was() {
    let server = Server::start(vec![error("503 Slow Down", "SlowDown"), says(answer("204 No Content", "", ""))]);
    let none = Settings { retry_max_elapsed: Duration::ZERO, save_max_elapsed: Duration::ZERO, ..settings() };
    let bench = Bench::new(server.port, none, 1 << 20);
    assert!(matches!(bench.put(vec![1].into()), Err(refused) if refused.kind == Kind::Throttled));
    let abort = Call::new(CallKind::AbortUpload, "DELETE");
    assert!(matches!(bench.run(Op::Call(Box::new(abort))), Outcome::Reply(_)));
}

/// Would wait for an answer longer than the test does.
fn patient() -> Settings {
    Settings { first_byte_timeout: Some(Duration::from_secs(100)), ..settings() }
}

/// No answer at all for every so manieth request; others at once.
fn ignores(every: usize) -> Step {
    let (mut n, mut kept) = (0, Vec::<TcpStream>::new());
    Box::new(move |_, c| {
        n += 1;
        if n % every == 0 {
            kept.push(c.try_clone().unwrap());
            return true;
        }
        c.write_all(answer("200 OK", "ETag: \"e\"\r\n", "x").as_bytes()).is_ok()
    })
}

#[test]
fn a_read_without_an_answer_is_sent_again_elsewhere() {
    let server = Server::start(vec![ignores(100)]);
    let bench = Bench::new(server.port, Settings { max_connections: 8, ..patient() }, 8 << 20);
    bench.queue.engine.log.enable(true);
    (0..1000).for_each(|_| assert!(bench.submit("k", whole()) < 1000));
    assert!(take_all(&bench, 1000).iter().all(|o| matches!(o, Outcome::Body(_))));
    let stats = &bench.client.stats;
    let (hedges, requests) = (stats.hedges.load(SeqCst), stats.requests.load(SeqCst));
    assert!(hedges >= 9 && hedges * 20 <= requests && requests == 1000 + hedges, "{hedges} of {requests}");
    assert_eq!(stats.retries.load(SeqCst), 0, "it is no attempt of its own");
    let records = bench.queue.engine.log.drain(Duration::ZERO);
    assert_eq!(records.len() as u64, requests);
    assert!(records.iter().all(|r| r.attempt == 1));
    assert_eq!(records.iter().filter(|r| r.error.contains("sent again")).count() as u64, hedges);
}

#[test]
fn hedges_are_few_where_everything_is_slow_and_writes_have_none() {
    let server = Server::start(vec![answers(Duration::from_millis(350), |_| answer("200 OK", "", "x"))]);
    let bench = Bench::new(server.port, Settings { max_connections: 100, ..patient() }, 8 << 20);
    (0..300).for_each(|_| assert!(bench.submit("k", whole()) < 300));
    assert!(take_all(&bench, 300).iter().all(|o| matches!(o, Outcome::Body(_))));
    let (hedges, requests) = (bench.client.stats.hedges.load(SeqCst), bench.client.stats.requests.load(SeqCst));
    assert!(hedges * 20 <= requests, "{hedges} of {requests}");
    assert!(bench.client.stats.retries.load(SeqCst) == 0);
    for _ in 0..3 {
        bench.put(vec![1].into()).unwrap();
    }
    let delete = Op::Call(Box::new(Call::new(CallKind::Delete, "DELETE")));
    assert!(matches!(bench.run(delete), Outcome::Reply(_)));
    assert_eq!(bench.client.stats.hedges.load(SeqCst), hedges);
}
