//! What attempts leave behind: records, counts, and when there is no further one.
use crate::server::{Bench, Server, Step, answer, error, range_of, ranged, says, settings, text};
use s3dataset_engine::client::Settings;
use s3dataset_engine::failure::Kind;
use s3dataset_engine::request::{Call, CallKind, Check, Fetch, Op, Outcome, What};
use std::io::Write;
use std::time::Duration;

/// A whole answer of which only the beginning comes.
fn breaks_off(length: usize, begins: &'static str) -> Step {
    Box::new(move |_, c| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nETag: \"e\"\r\n\r\n{begins}");
        c.write_all(head.as_bytes()).unwrap();
        false
    })
}

/// (attempt, status, bytes that came, how the error begins) of each record.
fn records(bench: &Bench) -> Vec<(u32, u16, u64, String)> {
    let short = |error: String| error.split(':').next().unwrap_or_default().to_owned();
    let records = bench.queue.engine.log.drain(Duration::ZERO);
    records.into_iter().map(|r| (r.attempt, r.status, r.bytes_in, short(r.error))).collect()
}

#[test]
fn every_attempt_leaves_one_record() {
    let steps = vec![
        error("500 Internal Server Error", "InternalError"),
        breaks_off(10, "0123"),
        breaks_off(10, "wrong length for the range"),
        ranged("0123456789", "\"e\""),
    ];
    let server = Server::start(steps);
    let bench = Bench::of(&server);
    bench.queue.engine.log.enable(true);
    let body = bench.get(What::Whole, Some(10), None);
    assert!(body.is_err(), "a server that ignores ranges is no use");
    let refused = (1, 500, 61, "500 InternalError".to_owned());
    let broken = (2, 200, 4, "transport".to_owned());
    let ignored = (3, 200, 0, "invalid".to_owned());
    assert_eq!(records(&bench), [refused, broken, ignored]);
    assert_eq!(text(&bench.get(What::Whole, None, None).unwrap()), "0123456789");
    assert_eq!(records(&bench), [(1, 206, 10, String::new())]);
}

#[test]
fn bodies_that_break_off_in_every_place_leave_a_record() {
    let object: &'static str = "x".repeat(40).leak();
    let part: Step = Box::new(|_, c| {
        let range = "ETag: \"e\"\r\nContent-Length: 10\r\nContent-Range: bytes 0-9/40";
        c.write_all(format!("HTTP/1.1 206 Partial Content\r\n{range}\r\n\r\nxx").as_bytes()).unwrap();
        false
    });
    let server = Server::start(vec![part, ranged(object, "\"e\"")]);
    let bench = Bench::new(server.port, Settings { part_size: 10, max_connections: 1, ..settings() }, 1 << 20);
    bench.queue.engine.log.enable(true);
    assert_eq!(text(&bench.get(What::Whole, Some(40), None).unwrap()), object);
    let kept = records(&bench);
    assert_eq!(kept.len(), server.seen().len(), "{kept:?}");
    assert_eq!(kept.iter().map(|r| r.2).sum::<u64>(), 40, "{kept:?}");
    assert_eq!(kept.iter().filter(|r| r.3 == "transport").count(), 1, "{kept:?}");
}

#[test]
fn errors_behind_status_200_stand_in_the_record() {
    let late = "<Error><Code>InternalError</Code><Message>m</Message></Error>";
    let done = "<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>";
    let server = Server::start(vec![says(answer("200 OK", "", late)), says(answer("200 OK", "", done))]);
    let bench = Bench::of(&server);
    bench.queue.engine.log.enable(true);
    assert!(matches!(bench.run(Op::Call(Box::new(Call::new(CallKind::CompleteUpload, "POST")))), Outcome::Reply(_)));
    let late = (1, 200, late.len() as u64, "200 InternalError".to_owned());
    assert_eq!(records(&bench), [late, (2, 200, done.len() as u64, String::new())]);
}

#[test]
fn what_is_called_off_before_it_is_sent_leaves_no_record() {
    let silent: Step = Box::new(|_, _| {
        std::thread::sleep(Duration::from_secs(2));
        false
    });
    let server = Server::start(vec![silent]);
    let bench = Bench::new(server.port, Settings { max_connections: 1, ..settings() }, 1 << 20);
    bench.queue.engine.log.enable(true);
    let fetch = || {
        Op::Fetch(Fetch { what: What::Whole, size: None, limit: u64::MAX, pin: None, into: None, check: Check::Usual })
    };
    for _ in 0..5 {
        bench.submit("k", fetch());
    }
    while server.seen().is_empty() {
        std::thread::sleep(Duration::from_millis(5));
    }
    bench.queue.close();
    assert_eq!(records(&bench), [(1, 0, 0, "cancelled".to_owned())]);
}

/// Ranges of a large object, each broken off after so many bytes.
fn breaks_off_after(bytes: usize, object: &'static str) -> Step {
    Box::new(move |head, c| {
        let whole =
            if head.contains("range:") { range_of(object, "\"e\"", head) } else { answer("200 OK", "", object) };
        let body = whole.find("\r\n\r\n").unwrap() + 4;
        c.write_all(&whole.as_bytes()[..(body + bytes).min(whole.len())]).unwrap();
        false
    })
}

#[test]
fn a_body_that_gets_on_is_never_given_up() {
    let object: &'static str = "x".repeat(10 * (64 << 10)).leak();
    let patient = Settings { max_attempts: 3, ..settings() };
    let fetch = |bytes, what| {
        let server = Server::start(vec![breaks_off_after(bytes, object)]);
        Bench::new(server.port, patient.clone(), 8 << 20).get(what, Some(object.len() as u64), None)
    };
    assert_eq!(fetch(64 << 10, What::Whole).unwrap().buffer.len(), object.len());
    let pieces = What::Range { start: 10, end: object.len() as u64 };
    assert_eq!(fetch(64 << 10, pieces).unwrap().buffer.len(), object.len() - 10);
    let failure = fetch((64 << 10) - 1, What::Whole).err().unwrap();
    assert!(failure.retries_exhausted && failure.attempts == 3, "{failure:?}");
}

#[test]
fn a_write_that_meets_another_under_way_is_tried_again() {
    for code in ["ConditionalRequestConflict", "OperationAborted"] {
        let server = Server::start(vec![error("409 Conflict", code), says(answer("200 OK", "", ""))]);
        assert!(Bench::of(&server).put(vec![1].into()).is_ok());
    }
    let server = Server::start(vec![error("409 Conflict", "BucketAlreadyOwnedByYou")]);
    let failure = Bench::of(&server).put(vec![1].into()).err().unwrap();
    assert_eq!((failure.kind, failure.attempts), (Kind::Conflict, 1));
    let server = Server::start(vec![error("409 Conflict", "ConditionalRequestConflict")]);
    let bench = Bench::of(&server);
    let complete = Op::Call(Box::new(Call::new(CallKind::CompleteUpload, "POST")));
    assert!(
        matches!(bench.run(complete), Outcome::Failure(failure) if failure.attempts == 1),
        "parts are to be sent anew"
    );
}
