//! Panics outside of requests: whoever waits hears of it, and what comes later is served.
use crate::client::{Client, Route, Settings};
use crate::engine::Engine;
use crate::failure::Kind;
use crate::queue::{Pending, Queue};
use crate::request::{Check, Fetch, Job, Op, Outcome, Target, What};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(20);

/// Answers every GET with two bytes, in two parts when the key says so.
fn server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            std::thread::spawn(move || {
                let (mut head, mut byte) = (Vec::new(), [0]);
                while connection.read(&mut byte).is_ok_and(|n| n == 1) {
                    head.push(byte[0]);
                    if head.ends_with(b"\r\n\r\n") {
                        let text = String::from_utf8(std::mem::take(&mut head)).unwrap();
                        let first = text.split_once("bytes=").map_or(0, |(_, r)| r[..1].parse::<u32>().unwrap());
                        let range = format!("Content-Range: bytes {first}-{first}/2\r\nContent-Length: 1\r\n\r\nx");
                        let answer = match text.contains("range:") {
                            true => format!("HTTP/1.1 206 Partial Content\r\n{range}"),
                            false => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nxx".to_owned(),
                        };
                        connection.write_all(answer.as_bytes()).unwrap();
                    }
                }
            });
        }
    });
    port
}

fn queue(part_size: usize) -> (Arc<Queue>, Target) {
    let engine = Engine::start(2, 1 << 20).unwrap();
    let settings = Settings {
        unsigned: true,
        user_agent: "test".into(),
        part_size,
        max_attempts: 3,
        max_connections: 4,
        large_in_flight: 4,
        connect_timeout: Duration::from_secs(3),
        first_byte_timeout: None,
        stall_timeout: Duration::from_secs(15),
        retry_max_elapsed: Duration::from_secs(60),
        verify_reads: true,
        save_max_elapsed: Duration::from_secs(60),
        headers: Vec::new(),
        object_headers: Default::default(),
    };
    let client = Arc::new(Client::new(settings, None, engine.budget.clone()));
    let (host, port) = ("127.0.0.1".to_owned(), Some(server()));
    let route = Route::new("b".into(), false, host, port, "/b".into(), "us-east-1".into(), "s3".into());
    (Queue::new(engine, client), Target { route: Arc::new(route), key: "k".into(), version: None })
}

/// -> how many of so many requests came back as bodies, and how many as the engine's own failure.
fn ask(queue: &Arc<Queue>, target: &Target, count: usize) -> (usize, usize) {
    let first = queue.submit(count, |index| {
        let fetch =
            Fetch { what: What::Whole, size: Some(2), limit: u64::MAX, pin: None, into: None, check: Check::Usual };
        Pending::Job(Job::new(queue.clone(), index, target.clone(), Op::Fetch(fetch)))
    });
    let taken = queue.take(first..first + count as u64, TIMEOUT).expect("nothing may hang");
    let (mut bodies, mut failures) = (0, 0);
    for completed in taken {
        match completed.outcome {
            Outcome::Body(_) => bodies += 1,
            Outcome::Failure(failure) if failure.kind == Kind::Internal => {
                assert!(failure.message.contains("please report") && failure.key == "k", "{failure:?}");
                failures += 1;
            }
            _ => panic!("neither a body nor the engine's failure"),
        }
    }
    (bodies, failures)
}

#[test]
fn a_lane_that_panics_goes_on() {
    for part_size in [8, 1] {
        for place in ["work", "housekeep", "pull", "pulled", "serve", "hand over", "park"] {
            let (queue, target) = queue(part_size);
            assert_eq!(ask(&queue, &target, 3), (3, 0));
            *queue.engine.trips.lock().unwrap() = Some((place, 3));
            for _ in 0..20 {
                let (bodies, failures) = ask(&queue, &target, 10);
                assert_eq!(bodies + failures, 10);
            }
            let tripped = || queue.engine.trips.lock().unwrap_or_else(|e| e.into_inner()).is_some_and(|t| t.1 == 0);
            while !tripped() {
                ask(&queue, &target, 1);
                std::thread::sleep(Duration::from_millis(10));
            }
            assert_eq!(ask(&queue, &target, 50), (50, 0), "after panics at {place}");
            queue.close();
            assert_eq!(queue.client.budget.used(), 0, "after panics at {place}");
            assert_eq!(queue.client.in_flight.load(std::sync::atomic::Ordering::Relaxed), 0);
        }
    }
}

#[test]
fn lanes_that_always_panic_end_what_waits_for_them() {
    for place in ["work", "pull", "pulled", "park"] {
        let (queue, target) = queue(8);
        *queue.engine.trips.lock().unwrap() = Some((place, u32::MAX));
        assert_eq!(ask(&queue, &target, 30).1, 30, "{place}");
        queue.engine.trips.lock().unwrap_or_else(|e| e.into_inner()).take();
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(ask(&queue, &target, 30), (30, 0), "{place}");
    }
}
