//! The server that plays from a script, and an engine that talks to it.
use s3dataset_engine::client::{Client, Route, SecretHeaders, Settings};
use s3dataset_engine::engine::Engine;
use s3dataset_engine::failure::Failure;
use s3dataset_engine::queue::{Pending, Queue};
use s3dataset_engine::request::{Body, Call, CallKind, Check, Fetch, Job, Op, Outcome, Payload, Reply, Target, What};
use s3dataset_engine::sign::Credentials;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What the server does with one request: it is given the head and the connection, and says whether to read another.
pub type Step = Box<dyn FnMut(&str, &mut TcpStream) -> bool + Send>;

pub struct Server {
    pub port: u16,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Steps are taken in order, over all connections; the last one repeats.
    pub fn start(steps: Vec<Step>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (log, steps) = (seen.clone(), Arc::new(Mutex::new((steps, 0))));
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let (mut connection, log, steps) = (connection.unwrap(), log.clone(), steps.clone());
                std::thread::spawn(move || {
                    while let Some(head) = read_head(&mut connection) {
                        log.lock().unwrap().push(head.clone());
                        let mut script = steps.lock().unwrap();
                        let at = script.1.min(script.0.len() - 1);
                        script.1 += 1;
                        if !script.0[at](&head, &mut connection) {
                            return;
                        }
                    }
                });
            }
        });
        Server { port, seen }
    }

    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

fn read_head(connection: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if connection.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    Some(String::from_utf8(head).unwrap())
}

pub fn says(text: impl Into<String>) -> Step {
    let text = text.into();
    Box::new(move |_, c| c.write_all(text.as_bytes()).is_ok())
}

pub fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len())
}

pub fn error(status: &str, code: &str) -> Step {
    says(answer(status, "", &format!("<Error><Code>{code}</Code><Message>m</Message></Error>")))
}

/// The bytes that a ranged GET asks for, of `object`.
pub fn range_of(object: &str, etag: &str, head: &str) -> String {
    let range = head.lines().find_map(|l| l.strip_prefix("range: bytes=")).expect("a range");
    let (first, last) = range.split_once('-').unwrap();
    let first: usize = first.parse().unwrap();
    let last = last.parse::<usize>().unwrap().min(object.len() - 1);
    let headers = format!("ETag: {etag}\r\nContent-Range: bytes {first}-{last}/{}\r\n", object.len());
    answer("206 Partial Content", &headers, &object[first..=last])
}

pub fn ranged(object: &'static str, etag: &'static str) -> Step {
    Box::new(move |head, c| c.write_all(range_of(object, etag, head).as_bytes()).is_ok())
}

pub fn settings() -> Settings {
    Settings {
        unsigned: false,
        user_agent: "test".into(),
        part_size: 8 << 20,
        max_attempts: 4,
        max_connections: 16,
        large_in_flight: 8,
        connect_timeout: Duration::from_secs(3),
        first_byte_timeout: None,
        stall_timeout: Duration::from_secs(15),
        retry_max_elapsed: Duration::from_secs(60),
        verify_reads: true,
        save_max_elapsed: Duration::from_secs(60),
        headers: Vec::new(),
        object_headers: SecretHeaders::default(),
    }
}

pub struct Bench {
    pub queue: Arc<Queue>,
    pub route: Arc<Route>,
    pub client: Arc<Client>,
}

impl Bench {
    pub fn new(port: u16, settings: Settings, memory: usize) -> Bench {
        let engine = Engine::start(1, memory).unwrap();
        let client = Arc::new(Client::new(settings, None, engine.budget.clone()));
        client.set_credentials(Credentials {
            access_key: "a".into(),
            secret_key: "s".into(),
            session_token: None,
            of_session: false,
        });
        Bench::with(port, engine, client)
    }

    /// Another server and queue of the same client.
    pub fn with(port: u16, engine: Arc<Engine>, client: Arc<Client>) -> Bench {
        let (host, prefix) = ("127.0.0.1".to_owned(), "/b".to_owned());
        let route = Route::new("b".into(), false, host, Some(port), prefix, "us-east-1".into(), "s3".into());
        Bench { queue: Queue::new(engine, client.clone()), route: Arc::new(route), client }
    }

    pub fn of(server: &Server) -> Bench {
        Bench::new(server.port, settings(), 64 << 20)
    }

    pub fn submit(&self, key: &str, op: Op) -> u64 {
        let mut op = Some(op);
        let target = Target { route: self.route.clone(), key: key.into(), version: None };
        self.queue.submit(1, |index| {
            let (queue, target, op) = (self.queue.clone(), target.clone(), op.take().unwrap());
            Pending::Job(Job::new(queue, index, target, op))
        })
    }

    pub fn run(&self, op: Op) -> Outcome {
        let index = self.submit("k", op);
        let taken = self.queue.take(index..index + 1, Duration::from_secs(20)).expect("a result in time");
        taken.into_iter().next().unwrap().outcome
    }

    pub fn get(&self, what: What, size: Option<u64>, pin: Option<&str>) -> Result<Body, Failure> {
        let pin = pin.map(str::to_owned);
        match self.run(Op::Fetch(Fetch { what, size, limit: u64::MAX, pin, into: None, check: Check::Usual })) {
            Outcome::Body(body) => Ok(body),
            Outcome::Failure(failure) => Err(*failure),
            _ => panic!("neither a body nor a failure"),
        }
    }

    pub fn put(&self, data: Arc<[u8]>) -> Result<Reply, Failure> {
        let mut call = Call::new(CallKind::Put, "PUT");
        call.payload = Payload::Owned(data);
        match self.run(Op::Call(Box::new(call))) {
            Outcome::Reply(reply) => Ok(*reply),
            Outcome::Failure(failure) => Err(*failure),
            _ => panic!("neither a reply nor a failure"),
        }
    }
}

pub fn text(body: &Body) -> String {
    let mut bytes = vec![0; body.buffer.len()];
    body.buffer.span().copy_to(0, &mut bytes);
    String::from_utf8(bytes).unwrap()
}
