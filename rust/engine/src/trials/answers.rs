//! Whole requests, and what a server answers to one after the other.
use super::{Trial, stream};
use crate::budget::Budget;
use crate::checksum::Algorithm;
use crate::client::{Client, Route};
use crate::connect::Connections;
use crate::engine::Engine;
use crate::http::Connection;
use crate::lane::{EventLoop, Lane, Signers, hand_over, serve};
use crate::proxy::{Forwarding, Proxies};
use crate::queue::{Completed, Pending, Queue};
use crate::raw::{Listed, span_of_mut};
use crate::request::{Call, CallKind, Check, Fetch, Job, Op, Outcome, Payload, Target, What, headers_of};
use crate::sign::Credentials;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tokio::io::Interest;

/// The first three bytes: the operation, a number for it, and how; then answers with `BETWEEN` them.
pub const ANSWERS: Trial = Trial {
    name: "answers",
    run: answers,
    rounds: 2_000,
    begin: &[
        b"\x00\x00\x00HTTP/1.1 206 x\r\nContent-Range: bytes 0-4/5\r\nContent-Length: 5\r\nETag: \"e\"\r\n\r\nhello",
        b"\x01\x05\x10HTTP/1.1 200 OK\r\nContent-Length: 5\r\nETag: \"e\"\r\nx-amz-checksum-crc32: NhCmhg==\r\n\r\nhello",
        b"\x00\x00\x00HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nETag: \"e\"\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"\x00\x00\x01HTTP/1.1 206 x\r\nContent-Range: bytes 0-4/9\r\nContent-Length: 5\r\nETag: \"e\"\r\n\r\nhel\n%%\n\
          HTTP/1.1 206 x\r\nContent-Range: bytes 3-8/9\r\nContent-Length: 6\r\nETag: \"e\"\r\n\r\nlo all\n%%\n\
          HTTP/1.1 206 x\r\nContent-Range: bytes 5-8/9\r\nContent-Length: 4\r\nETag: \"e\"\r\n\r\n all",
        b"\x02\x05\x00HTTP/1.1 206 x\r\nContent-Range: bytes 5-9/100\r\nContent-Length: 5\r\n\r\nhello",
        b"\x03\x05\x00HTTP/1.1 416 x\r\nContent-Range: bytes */0\r\nContent-Length: 0\r\n\r\n",
        b"\x04\x05\x08HTTP/1.1 503 Slow Down\r\nContent-Length: 45\r\nRetry-After: 0\r\n\r\n\
          <Error><Code>SlowDown</Code><Message/></Error>\n%%\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"\x06\x00\x00HTTP/1.1 404 x\r\nContent-Length: 0\r\n\r\n\n%%\nHTTP/1.1 404 x\r\nContent-Length: 37\r\n\r\n\
          <Error><Code>NoSuchKey</Code></Error>",
        b"\x07\x00\x00HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3a\r\n\
          <ListBucketResult><Contents><Key>k</Key><Size>1</Size></Contents></ListBucketResult>\r\n0\r\n\r\n",
        b"\x08\x05\x04HTTP/1.1 200 OK\r\nETag: \"e\"\r\nContent-Length: 0\r\n\r\n",
        b"\x0b\x00\x02HTTP/1.1 200 OK\r\n\r\n<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>",
        b"\x0c\x00\x20HTTP/1.1 200 OK\r\n\r\n<Error><Code>InternalError</Code></Error>\n%%\n\
          HTTP/1.1 200 OK\r\n\r\n   <CompleteMultipartUploadResult><ETag>x</ETag></CompleteMultipartUploadResult>",
        b"\x05\xff\x00HTTP/1.1 206 x\r\nContent-Range: bytes 0-63/255\r\nContent-Length: 64\r\n\r\n\
          0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        b"\x00\x00\x40HTTP/1.1 200 OK\r\n\r\n<CreateSessionResult><Credentials><SessionToken>t</SessionToken><SecretAccessKey>s\
          </SecretAccessKey><AccessKeyId>a</AccessKeyId><Expiration>2999-01-01T00:00:00Z</Expiration></Credentials>\
          </CreateSessionResult>\n%%\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
        b"\x00\x00\x00HTTP/1.1 301 x\r\nx-amz-bucket-region: eu-west-1\r\nContent-Length: 0\r\n\r\n\n%%\n\
          HTTP/1.1 403 x\r\nDate: Wed, 12 Oct 2009 17:50:00 GMT\r\nContent-Length: 48\r\n\r\n\
          <Error><Code>RequestTimeTooSkewed</Code></Error>\n%%\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
    ],
    splinters: &[
        b"\n%%\n",
        b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 206 x\r\n",
        b"HTTP/1.1 500 x\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 400 x\r\n",
        b"Content-Range: bytes 0-18446744073709551615/*\r\n",
        b"Content-Range: bytes 0-4/18446744073709551615\r\n",
        b"Content-Length: 18446744073709551615\r\n",
        b"Content-Length: 1099511627776\r\n",
        b"ETag: \"f\"\r\n",
        b"Connection: close\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"x-amz-checksum-crc64nvme: AAAAAAAAAAA=\r\n",
        b"<Code>ExpiredToken</Code>",
        b"<Code>NotImplemented</Code>",
        b"0",
        b"9",
    ],
};

const BETWEEN: &[u8] = b"\n%%\n";
/// So many connections lie idle at first; there is nobody who would take another.
const CONNECTIONS: usize = 6;
const LIMIT: usize = 1 << 20;
const GUARD: [u8; 16] = [0xa5; 16];

thread_local! {
    static LOOP: (Arc<Engine>, EventLoop) = {
        let engine = Engine::idle(1, LIMIT);
        let event_loop = EventLoop::new(&engine).expect("an event loop");
        event_loop.attend(async { tokio::time::pause() }); // pauses end as soon as nothing else is to do
        (engine, event_loop)
    };
}

fn answers(bytes: &[u8]) {
    let [operation, n, how, rest @ ..] = bytes else { return };
    let mut all = Vec::new();
    let mut rest = rest;
    while let Some(at) = rest.windows(BETWEEN.len()).position(|window| window == BETWEEN) {
        all.push(&rest[..at]);
        rest = &rest[at + BETWEEN.len()..];
    }
    all.push(rest);
    LOOP.with(|(engine, event_loop)| {
        let exam = Exam::new(engine, *operation, *n, *how);
        exam.sit(event_loop, &all);
    });
}

struct Exam {
    queue: Arc<Queue>,
    target: Target,
    op: Op,
    /// The caller's memory, with a guard behind it.
    memory: Vec<u8>,
    /// The server sends so much at once.
    step: usize,
    /// It does so after each answer.
    closes: bool,
    proxies: Proxies,
}

impl Exam {
    fn new(engine: &Arc<Engine>, operation: u8, n: u8, how: u8) -> Exam {
        let has = |bit: u8| how & bit != 0;
        let client = Client::new(super::settings(), None, Budget::new(LIMIT, Box::new(|| ())));
        client.stats.connections_open.store(CONNECTIONS as u64, Relaxed);
        client.set_credentials(Credentials {
            access_key: "a".into(),
            secret_key: "s".into(),
            session_token: None,
            of_session: false,
        });
        client.keep_credentials("there are no others".into());
        let mut route =
            Route::new("b".into(), false, "127.0.0.1".into(), Some(1), "/b".into(), "us-east-1".into(), "s3".into());
        if has(0x40) {
            route = route.with_sessions(Vec::new());
        }
        let proxies = match has(0x80) {
            true => Proxies::new("127.0.0.1".into(), 1, None, ""),
            false => Proxies::default(),
        };
        let n = u64::from(n);
        let mut memory = Vec::new();
        let pin = has(0x08).then(|| "e".to_owned());
        let fetch = |what, size| Fetch {
            what,
            size,
            limit: if has(0x20) { n + 1 } else { u64::MAX },
            pin,
            into: None,
            check: if has(0x04) { Check::Stored } else { Check::Usual },
        };
        let call = |kind, method| {
            let payload = if has(0x10) { Payload::Owned(Arc::from(&b"payload"[..])) } else { Payload::None };
            let checksum = has(0x04).then_some(Algorithm::Crc64Nvme);
            Op::Call(Box::new(Call { payload, checksum, ..Call::new(kind, method) }))
        };
        let op = match operation % 19 {
            0 => Op::Fetch(fetch(What::Whole, None)),
            1 => Op::Fetch(fetch(What::Whole, Some(n))),
            2 => Op::Fetch(fetch(What::Range { start: 5, end: 5 + n }, None)),
            3 => Op::Fetch(fetch(What::Suffix(n), None)),
            4 => Op::Fetch(fetch(What::Range { start: 5, end: 5 + n }, Some(5 + n + n % 3))),
            5 => {
                memory = vec![0; n as usize];
                memory.extend(GUARD);
                let into = Some(span_of_mut(&mut memory).slice(0, n as usize));
                Op::Fetch(Fetch { into, limit: u64::MAX, ..fetch(What::Range { start: 0, end: n }, None) })
            }
            6 => call(CallKind::Head, "HEAD"),
            7 => call(CallKind::List, "GET"),
            8 => call(CallKind::Put, "PUT"),
            9 => call(CallKind::UploadPart, "PUT"),
            10 => call(CallKind::UploadPartCopy, "PUT"),
            11 => call(CallKind::CreateUpload, "POST"),
            12 => call(CallKind::CompleteUpload, "POST"),
            13 => call(CallKind::AbortUpload, "DELETE"),
            14 => call(CallKind::Delete, "DELETE"),
            15 => call(CallKind::DeleteMany, "POST"),
            16 => call(CallKind::Copy, "PUT"),
            17 => call(CallKind::ListUploads, "GET"),
            _ => Op::Fetch(fetch(What::Range { start: n, end: u64::MAX }, None)),
        };
        Exam {
            queue: Queue::new(engine.clone(), Arc::new(client)),
            target: Target { route: Arc::new(route), key: "k".into(), version: None },
            op,
            memory,
            step: if has(0x01) { 7 } else { usize::MAX },
            // Ten minutes are what those may take, should an answer not end.
            closes: has(0x02) || matches!(operation % 19, 10 | 12 | 16),
            proxies,
        }
    }

    fn sit(self, event_loop: &EventLoop, answers: &[&[u8]]) {
        let Exam { queue, target, op, memory, step, closes, proxies } = self;
        let (engine, client) = (queue.engine.clone(), queue.client.clone());
        let is_whole = matches!(&op, Op::Fetch(Fetch { what: What::Whole, limit: u64::MAX, .. }));
        let script = Rc::new(Script {
            left: RefCell::new(answers.iter().map(|answer| answer.to_vec()).collect()),
            served: Cell::new(0),
            step,
            closes,
        });
        let place = target.route.place();
        let asks = |index| Pending::Job(Job::new(queue.clone(), index, target.clone(), op));
        let mut asks = Some(asks);
        let index = queue.submit(1, |index| asks.take().expect("one request")(index));
        let idle = event_loop.attend(async {
            let connections = Connections::default();
            for _ in 0..CONNECTIONS {
                let (ours, theirs) = UnixStream::pair().expect("two sockets");
                let mut connection = Connection::new(Listed::of(tokio_stream(ours)));
                if let Some(proxy) = proxies.to(&place.host, place.port) {
                    connection.forward_by(Forwarding::new(proxy, &place.authority));
                }
                connections.put_back(&client, false, &place, connection);
                tokio::task::spawn_local(script.clone().serve(tokio_stream(theirs)));
            }
            let lane = Lane::new(engine.clone(), 0, connections, Signers::default());
            let began = Instant::now();
            while queue.unfinished() > 0 {
                while let Some((task, running)) = engine.pull(&lane) {
                    tokio::task::spawn_local(serve(lane.clone(), task, running));
                }
                let _ = tokio::time::timeout(Duration::from_millis(10), engine.lanes[0].notified()).await;
                hand_over();
                lane.watch(Instant::now());
                assert!(began.elapsed() < Duration::from_secs(20), "it does not end");
            }
            tokio::task::yield_now().await; // what has ended lets go
            let idle = Cell::new(0);
            lane.connections.close_idle(None, |_| idle.set(idle.get() + 1));
            idle.get()
        });
        let taken = queue.take(index..index + 1, Duration::ZERO).expect("it has ended");
        let came: usize = answers.iter().map(|answer| answer.len()).sum();
        for Completed { outcome, .. } in &taken {
            look_at(outcome, came, (is_whole && script.served.get() == 1).then_some(answers[0]));
        }
        assert!(memory.is_empty() || memory.ends_with(&GUARD));
        drop(taken);
        (0..2).for_each(|_| engine.pool.trim()); // so that AddressSanitizer sees who uses it afterwards
        let counts = [&client.in_flight, &client.large_in_flight, &client.waiting_for_budget, &client.aside];
        assert_eq!(counts.map(|count| count.load(Relaxed)), [0; 4]);
        assert_eq!((client.budget.used(), client.stats.connections_open.load(Relaxed)), (0, idle));
    }
}

/// `came`: so many bytes came, of all answers together; `only`: the answer to the whole, where there was one alone.
fn look_at(outcome: &Outcome, came: usize, only: Option<&[u8]>) {
    match outcome {
        Outcome::Body(body) => {
            assert!(
                body.buffer.len() <= came && body.start + body.buffer.len() as u64 <= body.object_size.max(body.start)
            );
            headers_of(&body.head);
            if let Some((200, _, Some(expected))) = only.and_then(|answer| stream::expected(answer, false, None)) {
                let mut bytes = vec![0; body.buffer.len()];
                body.buffer.span().copy_to(0, &mut bytes);
                assert_eq!(bytes, expected);
            }
        }
        Outcome::List(page) => assert!(page.len() <= came),
        Outcome::Reply(reply) => drop(headers_of(&reply.head)),
        Outcome::Failure(failure) => assert!(!(failure.message.is_empty() && failure.code.is_empty()), "{failure:?}"),
    }
}

fn tokio_stream(socket: UnixStream) -> tokio::net::TcpStream {
    socket.set_nonblocking(true).expect("not blocking");
    tokio::net::TcpStream::from_std(TcpStream::from(OwnedFd::from(socket))).expect("a stream")
}

/// What the server says, over all its connections.
struct Script {
    left: RefCell<VecDeque<Vec<u8>>>,
    served: Cell<usize>,
    step: usize,
    closes: bool,
}

impl Script {
    async fn serve(self: Rc<Self>, socket: tokio::net::TcpStream) {
        let mut request = Vec::new();
        loop {
            let mut piece = [0; 4096];
            match socket.async_io(Interest::READABLE, || socket.try_read(&mut piece)).await {
                Ok(n) if n > 0 => request.extend_from_slice(&piece[..n]),
                _ => return,
            }
            if !request.windows(4).any(|window| window == b"\r\n\r\n") {
                continue;
            }
            request.clear();
            let Some(answer) = self.left.borrow_mut().pop_front() else { return };
            self.served.set(self.served.get() + 1);
            for piece in answer.chunks(self.step) {
                let mut rest = piece;
                while !rest.is_empty() {
                    match socket.async_io(Interest::WRITABLE, || socket.try_write(rest)).await {
                        Ok(n) => rest = &rest[n..],
                        Err(_) => return,
                    }
                }
                tokio::task::yield_now().await;
            }
            if self.closes || self.left.borrow().is_empty() {
                return;
            }
        }
    }
}
