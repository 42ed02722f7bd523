//! Bodies in chunks and bodies up to the end of the connection: into their place, within the budget.
use crate::server::{Bench, Server, Step, ranged, says, settings, text};
use s3dataset_engine::client::Settings;
use s3dataset_engine::failure::Kind;
use s3dataset_engine::raw::span_of_mut;
use s3dataset_engine::request::{Check, Fetch, Op, Outcome, What};
use std::io::Write;
use std::net::Shutdown;
use std::sync::mpsc;
use std::time::{Duration, Instant};

#[test]
fn framing_of_every_kind_is_read() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nETag: \"e\"\r\n\r\n4;x=y\r\n0123\r\n6\r\n456789\r\n0\r\nT: v\r\n\r\n";
    let bytewise: Step = Box::new(|_, c| {
        c.set_nodelay(true).unwrap();
        for byte in b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789" {
            c.write_all(&[*byte]).unwrap();
        }
        true
    });
    let until_close: Step = Box::new(|_, c| {
        c.write_all(b"HTTP/1.1 200 OK\r\n\r\n0123456789").unwrap();
        c.shutdown(Shutdown::Write).unwrap();
        false
    });
    let server = Server::start(vec![says(chunked), bytewise, until_close, ranged("0123456789", "\"e\"")]);
    let bench = Bench::of(&server);
    for _ in 0..4 {
        assert_eq!(text(&bench.get(What::Whole, None, None).unwrap()), "0123456789");
    }
}

#[test]
fn ranges_in_chunks_are_read() {
    let chunked = |first: usize, text: &str, total: usize| {
        let head = "HTTP/1.1 206 Partial Content\r\nTransfer-Encoding: chunked\r\nETag: \"e\"\r\nContent-Range: bytes";
        let (last, n) = (first + text.len() - 1, text.len());
        says(format!("{head} {first}-{last}/{total}\r\n\r\n{n:x}\r\n{text}\r\n0\r\n\r\n"))
    };
    let server = Server::start(vec![chunked(0, "0123456789", 10)]);
    let bench = Bench::of(&server);
    assert_eq!(text(&bench.get(What::Whole, None, None).unwrap()), "0123456789");
    let mut memory = vec![0u8; 10];
    let into = Some(span_of_mut(&mut memory));
    let fetch = Fetch {
        what: What::Range { start: 0, end: 10 },
        size: None,
        limit: u64::MAX,
        pin: None,
        into,
        check: Check::Usual,
    };
    assert!(matches!(bench.run(Op::Fetch(fetch)), Outcome::Reply(_)));
    assert_eq!(memory, b"0123456789");
    // Fewer bytes than the head says are no success.
    let short: Step = says(
        "HTTP/1.1 206 Partial Content\r\nTransfer-Encoding: chunked\r\nContent-Range: bytes 0-9/10\r\n\r\n3\r\n012\r\n0\r\n\r\n",
    );
    let server = Server::start(vec![short]);
    let bench = Bench::new(server.port, Settings { max_attempts: 2, ..settings() }, 1 << 20);
    assert_eq!(bench.get(What::Whole, None, None).err().unwrap().kind, Kind::Transport);
}

#[test]
fn a_whole_object_answers_for_a_tail_that_is_no_shorter() {
    let whole = |text: &str| says(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len()));
    let server = Server::start(vec![whole(""), whole("0123"), whole("01234")]);
    let bench = Bench::of(&server);
    assert_eq!(text(&bench.get(What::Suffix(4), None, None).unwrap()), "");
    assert_eq!(text(&bench.get(What::Suffix(4), None, None).unwrap()), "0123");
    assert_eq!(bench.get(What::Suffix(4), None, None).err().unwrap().kind, Kind::Invalid);
}

const KIB: usize = 1 << 10;
const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nETag: \"e\"\r\n\r\n";

fn chunk(bytes: usize) -> Vec<u8> {
    [format!("{bytes:x}\r\n").as_bytes(), &vec![b'x'; bytes], b"\r\n"].concat()
}

/// So many bytes in chunks; then it waits for a word before it sends the end.
fn sends(bytes: usize, word: mpsc::Receiver<()>) -> Step {
    let word = std::sync::Arc::new(std::sync::Mutex::new(word));
    Box::new(move |_, c| {
        let (mut connection, word) = (c.try_clone().unwrap(), word.clone());
        let body = chunk(bytes);
        std::thread::spawn(move || {
            connection.write_all(CHUNKED.as_bytes()).unwrap();
            connection.write_all(&body).unwrap();
            let _ = word.lock().unwrap().recv(); // a word, or the end of the test
            let _ = connection.write_all(b"0\r\n\r\n");
        });
        true
    })
}

fn whole() -> Op {
    Op::Fetch(Fetch { what: What::Whole, size: None, limit: u64::MAX, pin: None, into: None, check: Check::Usual })
}

fn until(what: &str, mut seen: impl FnMut() -> bool) {
    let began = Instant::now();
    while !seen() {
        assert!(began.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn bodies_without_a_length_are_admitted_as_they_grow() {
    let (word, waits) = mpsc::channel();
    let server = Server::start(vec![sends(900 * KIB, waits)]);
    let bench = Bench::new(server.port, settings(), 4 << 20);
    for _ in 0..3 {
        bench.submit("k", whole());
    }
    let budget = &bench.client.budget;
    until("what has come is counted", || budget.used() >= 3 * 900 * KIB);
    assert!(budget.used() <= 4 << 20, "{}", budget.used());
    drop(word);
    for index in 0..3 {
        let taken = bench.queue.take(index..index + 1, Duration::from_secs(20)).expect("in time");
        assert!(matches!(&taken[0].outcome, Outcome::Body(body) if body.buffer.len() == 900 * KIB));
    }
    assert_eq!(budget.used(), 0);
}

#[test]
fn bodies_without_a_length_wait_for_room_as_others_do() {
    let body = [CHUNKED.as_bytes(), &chunk(700 * KIB), b"0\r\n\r\n"].concat();
    let server = Server::start(vec![says(String::from_utf8(body).unwrap())]);
    let bench = Bench::new(server.port, settings(), 3 << 20);
    let indices: Vec<u64> = (0..30).map(|_| bench.submit("k", whole())).collect();
    until("some come", || bench.queue.untaken() > 0);
    std::thread::sleep(Duration::from_millis(300));
    assert!(bench.queue.untaken() <= 3, "{} untaken", bench.queue.untaken());
    assert!(bench.client.budget.used() <= (3 << 20) + 2 * 700 * KIB, "{}", bench.client.budget.used());
    for index in indices {
        let taken = bench.queue.take(index..index + 1, Duration::from_secs(20)).expect("in time");
        assert!(matches!(&taken[0].outcome, Outcome::Body(body) if body.buffer.len() == 700 * KIB));
    }
    assert_eq!(bench.client.budget.used(), 0);
}

#[test]
fn a_body_without_end_is_refused_at_the_budget_s_limit() {
    let endless: Step = Box::new(|_, c| {
        c.write_all(CHUNKED.as_bytes()).unwrap();
        while c.write_all(&chunk(64 * KIB)).is_ok() {}
        false
    });
    let server = Server::start(vec![endless]);
    let bench = Bench::new(server.port, settings(), 2 << 20);
    let failure = bench.get(What::Whole, None, None).err().unwrap();
    assert_eq!((failure.kind, failure.attempts), (Kind::Invalid, 1), "{failure:?}");
    assert!(failure.message.contains("memory_limit_bytes"), "{failure:?}");
    assert_eq!(bench.client.budget.used(), 0);
    // A listing that told its size is believed.
    let body = [CHUNKED.as_bytes(), &chunk(3 << 20), b"0\r\n\r\n"].concat();
    let server = Server::start(vec![says(String::from_utf8(body).unwrap())]);
    let bench = Bench::new(server.port, settings(), 2 << 20);
    assert_eq!(bench.get(What::Whole, Some(3 << 20), None).unwrap().buffer.len(), 3 << 20);
}

#[test]
fn ranges_in_chunks_go_on_where_they_broke() {
    let object: &'static str = "0123456789";
    let broken: Step = Box::new(|_, c| {
        let head = "HTTP/1.1 206 Partial Content\r\nTransfer-Encoding: chunked\r\nETag: \"e\"";
        c.write_all(format!("{head}\r\nContent-Range: bytes 0-9/10\r\n\r\n6\r\n0123").as_bytes()).unwrap();
        false
    });
    let server = Server::start(vec![broken, ranged(object, "\"e\"")]);
    let bench = Bench::of(&server);
    assert_eq!(text(&bench.get(What::Range { start: 0, end: 10 }, None, None).unwrap()), object);
    assert!(server.seen()[1].contains("range: bytes=4-9\r\n"), "{:?}", server.seen());
}
