//! The engine against a server that plays from a script, byte for byte.
mod attempts;
mod framing;
mod patience;
mod server;

use s3dataset_engine::client::Settings;
use s3dataset_engine::failure::Kind;
use s3dataset_engine::queue::Queue;
use s3dataset_engine::raw::span_of_mut;
use s3dataset_engine::request::{Check, Fetch, Op, What};
use server::{Bench, Server, Step, answer, error, range_of, ranged, says, settings, text};
use std::io::Write;
use std::net::Shutdown;
use std::time::{Duration, Instant};

#[test]
fn a_body_that_breaks_off_is_resumed_where_it_broke_and_pinned() {
    let server = Server::start(vec![
        Box::new(|_, c| {
            let head = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\nETag: \"e1\"\r\n\r\n0123";
            c.write_all(head.as_bytes()).unwrap();
            false
        }),
        ranged("0123456789", "\"e1\""),
    ]);
    let bench = Bench::of(&server);
    let body = bench.get(What::Whole, Some(10), None).unwrap();
    assert_eq!((text(&body).as_str(), body.etag.as_str(), body.object_size), ("0123456789", "\"e1\"", 10));
    let seen = server.seen();
    assert!(!seen[0].contains("range:"), "a known size needs no range");
    assert!(seen[1].contains("range: bytes=4-9\r\n") && seen[1].contains("if-match: \"e1\"\r\n"), "{}", seen[1]);
}

#[test]
fn an_object_that_changed_meanwhile_is_reported_and_never_mixed() {
    for second in [ranged("ABCDEFGHIJ", "\"e2\""), error("412 Precondition Failed", "PreconditionFailed")] {
        let server = Server::start(vec![
            Box::new(|_, c| {
                c.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nETag: \"e1\"\r\n\r\n0123").unwrap();
                false
            }),
            second,
        ]);
        let failure = Bench::of(&server).get(What::Whole, Some(10), None).err().unwrap();
        assert_eq!(failure.kind, Kind::Changed, "{failure:?}");
    }
}

#[test]
fn parallel_ranges_of_two_versions_are_never_mixed() {
    // A server without conditions that replaces the object after the second range.
    let old = "o".repeat(100).leak();
    let new = "n".repeat(100).leak();
    for size in [Some(100), None] {
        let server = Server::start(vec![ranged(old, "\"e1\""), ranged(old, "\"e1\""), ranged(new, "\"e2\"")]);
        let bench = Bench::new(server.port, Settings { part_size: 10, ..settings() }, 1 << 20);
        let failure = bench.get(What::Whole, size, None).err().unwrap();
        assert_eq!(failure.kind, Kind::Changed, "{failure:?}");
    }
}

#[test]
fn an_object_of_unknown_size_costs_one_request_when_small_and_ranges_when_large() {
    let object: &'static str = (0..95).map(|i| char::from(b' ' + i)).collect::<String>().leak();
    let server = Server::start(vec![ranged(object, "\"e\"")]);
    let small = Bench::of(&server);
    assert_eq!(text(&small.get(What::Whole, None, None).unwrap()), object);
    assert_eq!(server.seen().len(), 1);
    let large = Bench::new(server.port, Settings { part_size: 10, ..settings() }, 1 << 20);
    assert_eq!(text(&large.get(What::Whole, None, None).unwrap()), object);
    assert_eq!(server.seen().len(), 11);
    let middle = large.get(What::Range { start: 3, end: 1000 }, None, None).unwrap();
    assert_eq!((text(&middle).as_str(), middle.start), (&object[3..], 3));
}

#[test]
fn an_object_that_grew_since_it_was_listed_is_not_cut() {
    let object: &'static str = "x".repeat(100).leak();
    let server = Server::start(vec![ranged(object, "\"e\"")]);
    let bench = Bench::new(server.port, Settings { part_size: 10, ..settings() }, 1 << 20);
    assert_eq!(bench.get(What::Whole, Some(90), None).err().unwrap().kind, Kind::Changed);
    let middle = bench.get(What::Range { start: 10, end: 60 }, Some(90), None).unwrap();
    assert_eq!(middle.buffer.len(), 50);
}

#[test]
fn what_nobody_takes_stays_within_the_budget() {
    let object: &'static str = "x".repeat(1000).leak();
    let whole = answer("200 OK", "ETag: \"e\"\r\n", object);
    let either: Step = Box::new(move |head, c| {
        let answer = if head.contains("range:") { range_of(object, "\"e\"", head) } else { whole.clone() };
        c.write_all(answer.as_bytes()).is_ok()
    });
    let server = Server::start(vec![either]);
    for size in [Some(1000), None] {
        let bench = Bench::new(server.port, settings(), 5500);
        let fetch = || Fetch { what: What::Whole, size, limit: u64::MAX, pin: None, into: None, check: Check::Usual };
        let ahead: Vec<u64> = (0..40).map(|i| bench.submit(&format!("k{i}"), Op::Fetch(fetch()))).collect();
        std::thread::sleep(Duration::from_millis(300));
        assert!((1..=6).contains(&bench.queue.untaken()), "{} untaken", bench.queue.untaken());
        // Another queue's caller, who would have to make room, is served all the same.
        let queue = Queue::new(bench.queue.engine.clone(), bench.client.clone());
        let other = Bench { queue, route: bench.route.clone(), client: bench.client.clone() };
        assert_eq!(text(&other.get(What::Whole, None, None).unwrap()), object);
        assert_eq!(bench.queue.take(39..40, Duration::from_secs(10)).map(|t| t.len()).unwrap_or(0), 1);
        for index in ahead.into_iter().take(39) {
            bench.queue.take(index..index + 1, Duration::from_secs(10)).expect("in time");
        }
    }
}

#[test]
fn a_connection_that_died_while_idle_costs_no_attempt() {
    let once: Step = Box::new(|_, c| {
        c.write_all(answer("200 OK", "", "a").as_bytes()).unwrap();
        c.shutdown(Shutdown::Both).unwrap();
        false
    });
    let server = Server::start(vec![once, says(answer("200 OK", "", "b"))]);
    let bench = Bench::new(server.port, Settings { max_attempts: 1, ..settings() }, 1 << 20);
    assert_eq!(text(&bench.get(What::Whole, Some(1), None).unwrap()), "a");
    std::thread::sleep(Duration::from_millis(50)); // the FIN must be here before the next request
    assert_eq!(text(&bench.get(What::Whole, Some(1), None).unwrap()), "b");
}

#[test]
fn an_early_refusal_of_an_upload_is_read() {
    let refuse: Step = Box::new(|_, c| {
        let body = "<Error><Code>EntityTooLarge</Code><Message>too large</Message></Error>";
        c.write_all(answer("400 Bad Request", "Connection: close\r\n", body).as_bytes()).unwrap();
        std::thread::sleep(Duration::from_millis(200));
        false
    });
    let server = Server::start(vec![refuse]);
    let failure = Bench::of(&server).put(vec![7u8; 64 << 20].into()).err().unwrap();
    assert_eq!((failure.status, failure.code.as_str()), (400, "EntityTooLarge"), "{failure:?}");
}

#[test]
fn errors_at_the_service_are_retried_and_counted() {
    let server = Server::start(vec![
        error("500 Internal Server Error", "InternalError"),
        error("503 Slow Down", "SlowDown"),
        says(answer("200 OK", "", "x")),
    ]);
    let bench = Bench::of(&server);
    assert_eq!(text(&bench.get(What::Whole, Some(1), None).unwrap()), "x");
    let causes: Vec<_> = bench.client.stats.causes().into_keys().collect();
    assert_eq!(causes, ["500 InternalError", "503 SlowDown"]);
    let server = Server::start(vec![error("500 Internal Server Error", "InternalError")]);
    let failure = Bench::of(&server).get(What::Whole, Some(1), None).err().unwrap();
    assert!(failure.retries_exhausted && failure.attempts == 4 && failure.causes.len() == 3, "{failure:?}");
}

#[test]
fn retry_after_is_obeyed() {
    let body = "<Error><Code>SlowDown</Code></Error>";
    let server =
        Server::start(vec![says(answer("503 Slow Down", "Retry-After: 1\r\n", body)), says(answer("200 OK", "", "x"))]);
    let began = Instant::now();
    Bench::of(&server).get(What::Whole, Some(1), None).unwrap();
    assert!(began.elapsed() >= Duration::from_secs(1));
}

#[test]
fn another_region_is_followed_and_remembered() {
    let moved = answer(
        "301 Moved Permanently",
        "x-amz-bucket-region: eu-west-1\r\n",
        "<Error><Code>PermanentRedirect</Code></Error>",
    );
    let server = Server::start(vec![says(moved), says(answer("200 OK", "", "x"))]);
    let bench = Bench::of(&server);
    bench.get(What::Whole, Some(1), None).unwrap();
    bench.get(What::Whole, Some(1), None).unwrap();
    let scopes: Vec<_> = server.seen().iter().map(|h| h.contains("/eu-west-1/s3/aws4_request")).collect();
    assert_eq!(scopes, [false, true, true]);
    assert_eq!(bench.route.place().region, "eu-west-1");
}

#[test]
fn silence_and_stalls_end_in_time() {
    let silent: Step = Box::new(|_, _| {
        std::thread::sleep(Duration::from_secs(5));
        false
    });
    let first_byte_timeout = Some(Duration::from_millis(200));
    let quick =
        Settings { max_attempts: 2, first_byte_timeout, stall_timeout: Duration::from_millis(300), ..settings() };
    let server = Server::start(vec![silent]);
    let failure = Bench::new(server.port, quick.clone(), 1 << 20).get(What::Whole, Some(1), None).err().unwrap();
    assert_eq!(failure.kind, Kind::FirstByteTimeout);
    let stalls: Step = Box::new(|_, c| {
        c.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nabc").unwrap();
        std::thread::sleep(Duration::from_secs(5));
        false
    });
    let server = Server::start(vec![stalls]);
    let once = Settings { max_attempts: 1, ..quick };
    let failure = Bench::new(server.port, once, 1 << 20).get(What::Whole, Some(100_000), None).err().unwrap();
    assert_eq!(failure.kind, Kind::StallTimeout);
}

#[test]
fn closing_a_queue_gives_memory_up_at_once() {
    let stalls: Step = Box::new(|head, c| {
        let part = &range_of("0123456789", "\"e\"", head)[..90];
        c.write_all(part.as_bytes()).unwrap();
        std::thread::sleep(Duration::from_secs(5));
        c.write_all(b"late").ok();
        false
    });
    let server = Server::start(vec![stalls]);
    let bench = Bench::of(&server);
    let mut memory = vec![0u8; 10];
    let into = Some(span_of_mut(&mut memory));
    bench.submit(
        "k",
        Op::Fetch(Fetch {
            what: What::Range { start: 0, end: 10 },
            size: None,
            limit: u64::MAX,
            pin: None,
            into,
            check: Check::Usual,
        }),
    );
    std::thread::sleep(Duration::from_millis(100));
    let began = Instant::now();
    bench.queue.close();
    assert!(began.elapsed() < Duration::from_secs(2));
    memory.fill(b'!');
    std::thread::sleep(Duration::from_millis(50));
    assert!(memory.iter().all(|b| *b == b'!'), "poison was overwritten");
}

#[test]
fn endless_heads_and_wrong_lengths_end() {
    let endless: Step = Box::new(|_, c| {
        c.write_all(b"HTTP/1.1 200 OK\r\n").unwrap();
        while c.write_all(b"X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n").is_ok() {}
        false
    });
    let cases = vec![
        endless,
        says("HTTP/1.1 206 Partial Content\r\nContent-Length: 10\r\nContent-Range: bytes 5-14/20\r\n\r\n0123456789"),
        says("HTTP/1.1 206 Partial Content\r\nContent-Length: 3\r\nContent-Range: bytes 0-9/20\r\n\r\n012"),
        says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
        says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n"),
        says("\0\0\0\0\r\n\r\n"),
    ];
    for case in cases {
        let server = Server::start(vec![case]);
        let bench = Bench::new(server.port, Settings { max_attempts: 2, ..settings() }, 1 << 20);
        let failure = bench.get(What::Range { start: 0, end: 10 }, None, None).err().unwrap();
        assert_eq!(failure.kind, Kind::Transport, "{failure:?}");
    }
}

#[test]
fn a_small_budget_never_stops_whoever_takes_in_order() {
    let object: &'static str = "x".repeat(1000).leak();
    let server = Server::start(vec![says(answer("200 OK", "ETag: \"e\"\r\n", object))]);
    let bench = Bench::new(server.port, settings(), 1500);
    let fetch =
        || Fetch { what: What::Whole, size: Some(1000), limit: u64::MAX, pin: None, into: None, check: Check::Usual };
    let indices: Vec<u64> = (0..20).map(|i| bench.submit(&format!("k{i}"), Op::Fetch(fetch()))).collect();
    let mut held = Vec::new();
    for index in indices {
        // Everything taken is kept: bodies have left the budget by then.
        held.push(bench.queue.take(index..index + 1, Duration::from_secs(10)).expect("in time"));
    }
    assert!(bench.client.budget.used() >= 20 * 1000);
    drop(held);
    assert_eq!(bench.client.budget.used(), 0);
}
