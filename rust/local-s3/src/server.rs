//! Threads and listeners, and a request's way from its head to its answer.
use crate::auth::{Sender, authenticate};
use crate::config::{Config, ReadyInfo, WrongRegion};
use crate::connection::{Body, Connection, Response};
use crate::control;
use crate::date::Timestamp;
use crate::error::{Answer, Failure, S3Error};
use crate::faults::{Call as FaultCall, Effects, Ending, Mutation, Plan, fingerprint, wrong_region};
use crate::operations::{Call, Operation, objects};
use crate::request::{Query, Request, Target};
use crate::stats::{Entry, SentHead, Stats, now_s};
use crate::store::content::mix;
use crate::store::{Store, lock, read, write};
use crate::stream::Stream;
use crate::tls;
use std::collections::HashMap;
use std::io::{self, Read as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener, TcpStream as StdStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;

/// What all threads share.
pub struct Server {
    config: RwLock<Arc<Config>>,
    pub store: Store,
    pub stats: Arc<Stats>,
    pub plan: Plan,
    /// CRC64NVME of synthetic objects by seed and size, as Base64.
    pub synthetic_checksums: Mutex<HashMap<(u64, u64), String>>,
    requests: AtomicU64,
    /// Makes request ids of two servers differ.
    salt: u64,
    rates: Mutex<HashMap<u64, Bucket>>,
    outages: mpsc::UnboundedSender<Duration>,
    /// Counts outages; a connection ends when it changes.
    generation: watch::Sender<u64>,
}

/// A token bucket: requests left and when that was true.
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Server {
    pub fn config(&self) -> Arc<Config> {
        read(&self.config).clone()
    }

    pub fn set_config(&self, config: Config) {
        *write(&self.config) = Arc::new(config);
    }

    /// The server's clock.
    pub fn now(&self, effects: &Effects) -> Timestamp {
        Timestamp::now().shifted(self.config().clock_offset_s + effects.skew_s)
    }

    pub fn outage(&self, duration: Duration) {
        // The receiver lives as long as the server does.
        let _ = self.outages.send(duration);
    }

    pub fn check_region(&self, call: &Call<'_>) -> Answer<()> {
        let behaviour = call.config.wrong_region;
        let Sender::Known(signed) = call.sender else { return Ok(()) };
        if behaviour == WrongRegion::Accept || call.target.bucket.is_empty() {
            return Ok(());
        }
        let Some(bucket) = self.store.find(&call.target.bucket) else { return Ok(()) };
        if bucket.region == signed.region {
            return Ok(());
        }
        let host = call.request.header("host").unwrap_or("");
        Err(match behaviour {
            WrongRegion::Temporary => {
                // The name of the right region is where the request is served.
                if host.contains(&format!(".{}.", bucket.region)) {
                    return Ok(());
                }
                let port = host.rsplit_once(':').map_or(String::new(), |(_, port)| format!(":{port}"));
                let scheme = if call.config.tls { "https" } else { "http" };
                let name = format!("{}.s3.{}.localhost", bucket.name, bucket.region);
                let path = call.request.path();
                let path = match call.target.virtual_host {
                    true => path,
                    false => path.strip_prefix(&format!("/{}", bucket.name)).unwrap_or(path),
                };
                wrong_region(307, &bucket.region).header("Location", format!("{scheme}://{name}{port}{path}"))
            }
            WrongRegion::Permanent => wrong_region(301, &bucket.region).with("Bucket", &bucket.name),
            _ => wrong_region(400, &bucket.region),
        }
        .into())
    }

    /// Whether a prefix has served as many requests as it may in this second.
    fn is_over_rate(&self, config: &Config, operation: Operation, target: &Target) -> bool {
        let rate = if operation.writes() { config.traffic.writes_per_s } else { config.traffic.reads_per_s };
        if rate <= 0.0 {
            return false;
        }
        let prefix = target.key.rsplit_once('/').map_or("", |(prefix, _)| prefix);
        let kind = if operation.writes() { "w" } else { "r" };
        let mut rates = lock(&self.rates);
        let now = Instant::now();
        // A second's worth may come at once.
        let full = || Bucket { tokens: rate, at: now };
        let bucket = rates.entry(fingerprint(&[&target.bucket, prefix, kind])).or_insert_with(full);
        bucket.tokens = (bucket.tokens + (now - bucket.at).as_secs_f64() * rate).min(rate);
        bucket.at = now;
        if bucket.tokens < 1.0 {
            return true;
        }
        bucket.tokens -= 1.0;
        false
    }

    /// Time from the end of a request to the first byte of its answer.
    fn latency(&self, config: &Config, number: u64) -> Duration {
        let traffic = &config.traffic;
        let mut latency_s = traffic.latency_s;
        let chance = |salt: u64| mix(number ^ salt << 32) as f64 / u64::MAX as f64;
        if traffic.tail_probability > 0.0 && chance(1) < traffic.tail_probability {
            let stretch = match traffic.tail_exponent {
                exponent if exponent > 0.0 => (1.0 - chance(2)).max(1e-9).powf(-1.0 / exponent),
                _ => 1.0,
            };
            latency_s += traffic.tail_latency_s * stretch;
        }
        Duration::try_from_secs_f64(latency_s).unwrap_or_default()
    }

    async fn mutate(&self, mutation: &Mutation, target: &Target, now: Timestamp) -> Answer<()> {
        let bucket = self.store.bucket(&target.bucket)?;
        match mutation {
            Mutation::Delete => {
                bucket.delete(&target.key, |_| Ok(()))?;
            }
            Mutation::Replace { size_bytes } => {
                if let Some(object) = bucket.get(&target.key) {
                    let object = objects::replacement(&object, *size_bytes, now).await?;
                    bucket.put(&target.key, object, |_| Ok(()))?;
                }
            }
        }
        Ok(())
    }
}

/// How a request ended.
struct Outcome {
    /// 0 when no answer was sent.
    status: u16,
    code: Option<String>,
    bytes_in: u64,
    bytes_out: u64,
    goes_on: bool,
}

impl Outcome {
    const BROKEN: Self = Self { status: 0, code: None, bytes_in: 0, bytes_out: 0, goes_on: false };
}

async fn serve(server: &Server, connection: &mut Connection, id: u64) -> io::Result<()> {
    let mut served = 0;
    loop {
        let idle = Some(server.config().traffic.idle_timeout_s).filter(|s| *s > 0.0).map(Duration::from_secs_f64);
        let Some(request) = connection.next_request(idle).await? else { return Ok(()) };
        // Not before: the settings may have changed while the connection was idle.
        let config = server.config();
        let goes_on = if control::is_for(&request) {
            control::serve(server, connection, &request).await?
        } else {
            serve_request(server, &config, connection, &request, id).await
        };
        served += 1;
        let limit = config.traffic.max_requests_per_connection;
        if !goes_on || !request.keep_alive || (limit > 0 && served >= limit) {
            connection.close().await;
            return Ok(());
        }
    }
}

async fn serve_request(
    server: &Server,
    config: &Config,
    connection: &mut Connection,
    request: &Request,
    id: u64,
) -> bool {
    let started = Instant::now();
    let parsed = Target::of(request, &config.domains).and_then(|t| Ok((t, Query::parse(request.query())?)));
    let (target, query, unreadable) = match parsed {
        Ok((target, query)) => (target, query, None),
        Err(error) => (Target::default(), Query::default(), Some(error)),
    };
    let operation = match unreadable {
        None => Operation::of(request, &query, &target),
        Some(_) => Operation::Unknown,
    };
    let range = request.header("range");
    let part = query.get("partNumber").unwrap_or("");
    let identity = fingerprint(&[operation.name(), &target.bucket, &target.key, range.unwrap_or(""), part]);
    let attempt = server.stats.begin(operation.name(), identity);
    let fault_call = FaultCall { operation: operation.name(), bucket: &target.bucket, key: &target.key, identity };
    let effects = server.plan.effects(&fault_call);
    server.stats.faults.fetch_add(effects.names.len() as u64, Ordering::Relaxed);
    let number = server.requests.fetch_add(1, Ordering::Relaxed);
    let request_id = format!("{:016X}", mix(number ^ server.salt));
    let exchange = Exchange {
        server,
        config,
        request,
        target: &target,
        query: &query,
        operation,
        effects: &effects,
        request_id: &request_id,
        number,
    };
    let outcome = exchange.run(connection, unreadable).await.unwrap_or(Outcome::BROKEN);
    server.stats.end(outcome.status);
    if server.stats.logs() {
        server.stats.record(Entry {
            number: 0,
            time_s: now_s() - started.elapsed().as_secs_f64(),
            duration_s: started.elapsed().as_secs_f64(),
            connection: id,
            method: request.method().to_owned(),
            operation: operation.name(),
            query: request.query().to_owned(),
            range: range.map(str::to_owned),
            status: outcome.status,
            code: outcome.code,
            attempt,
            bytes_in: outcome.bytes_in,
            bytes_out: outcome.bytes_out,
            request_id: request_id.clone(),
            faults: effects.names.clone(),
            headers: SentHead(request.head().as_ref().into()),
            bucket: target.bucket,
            key: target.key,
        });
    }
    outcome.goes_on
}

/// One request and all that is known about it.
struct Exchange<'a> {
    server: &'a Server,
    config: &'a Config,
    request: &'a Request,
    target: &'a Target,
    query: &'a Query,
    operation: Operation,
    effects: &'a Effects,
    request_id: &'a str,
    number: u64,
}

impl Exchange<'_> {
    async fn run(&self, connection: &mut Connection, unreadable: Option<S3Error>) -> io::Result<Outcome> {
        let Self { server, effects, .. } = *self;
        if let Some(duration) = effects.outage {
            server.outage(duration);
        }
        if let Some(ending) = effects.ending {
            connection.end(ending, effects.stall).await;
            return Ok(Outcome::BROKEN);
        }
        if let Some(raw) = &effects.raw {
            connection.write_raw(raw.as_bytes()).await?;
            connection.close().await;
            return Ok(Outcome::BROKEN);
        }
        if effects.endless_head {
            return self.endless_head(connection).await;
        }
        let now = server.now(effects);
        if let Some(mutation) = &effects.before {
            let _ = server.mutate(mutation, self.target, now).await;
        }
        let bandwidth = self.config.traffic.bandwidth_bytes_s;
        let (answer, bytes_in, unread) = {
            let mut incoming = match connection.body(self.request, effects, bandwidth) {
                Ok(incoming) => incoming,
                Err(error) => return self.refuse(connection, &error).await,
            };
            let answer = match unreadable {
                Some(error) => Err(error.into()),
                None => self.answer(&mut incoming, now).await,
            };
            let mut unread = false;
            if !incoming.is_done() && !matches!(answer, Err(Failure::Io(_))) {
                // A short rest is read so that the connection can go on; S3 closes it otherwise.
                const MAX_SKIPPED_BYTES: u64 = 1 << 20;
                let early = effects.refusal.as_ref().is_some_and(|refusal| refusal.early_at.is_some());
                unread = early || incoming.is_waited_for() || !incoming.skip(MAX_SKIPPED_BYTES).await?;
            }
            (answer, incoming.received, unread)
        };
        let mut response = match answer {
            Ok(response) => response,
            Err(Failure::Io(error)) => return Err(error),
            Err(Failure::S3(error)) => self.error_response(&error),
        };
        response.close |= unread;
        if let Some(mutation) = &effects.after {
            // The answer has its version already; a request that follows it sees the new one.
            let _ = server.mutate(mutation, self.target, now).await;
        }
        if let Some(ending) = effects.lost {
            connection.end(ending, effects.stall).await;
            return Ok(Outcome { bytes_in, ..Outcome::BROKEN });
        }
        if let Some(error) = &effects.lost_refusal {
            response = self.error_response(error);
        }
        let delay = server.latency(self.config, self.number) + effects.delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if self.request.method() == "HEAD" {
            response.drop_body();
        }
        let (status, code) = (response.status, response.code.take());
        if self.takes_time() {
            let goes_on = self.respond_late(connection, &response).await?;
            return Ok(Outcome { status, code, bytes_in, bytes_out: response.body.len(), goes_on });
        }
        let date = now.http();
        let (bytes_out, goes_on) = connection.respond(response, effects, &date, self.request_id, bandwidth).await?;
        Ok(Outcome { status, code, bytes_in, bytes_out, goes_on })
    }

    async fn answer(&self, incoming: &mut crate::connection::Incoming<'_>, now: Timestamp) -> Answer<Response> {
        let Self { server, config, request, effects, .. } = *self;
        if let Some(refusal) = &effects.refusal {
            let most = refusal.early_at.unwrap_or(u64::MAX);
            if refusal.early_at.is_some() || !incoming.is_waited_for() {
                incoming.skip(most).await?;
            }
            return Err(refusal.error.clone().into());
        }
        if server.is_over_rate(config, self.operation, self.target) {
            incoming.skip(u64::MAX).await?;
            return Err(S3Error::new(503, "SlowDown", "Please reduce your request rate.").into());
        }
        let sender = authenticate(request, config, &config.credentials, now)?;
        if let (Some(error), true) = (&effects.error_in_200, self.takes_time()) {
            incoming.skip(u64::MAX).await?;
            let mut response = Response::xml(error.xml(request.path(), self.request_id));
            response.code = Some(error.code.to_string());
            return Ok(response);
        }
        let call = Call {
            server,
            config,
            request,
            query: self.query,
            target: self.target,
            sender: &sender,
            effects,
            operation: self.operation,
        };
        call.answer(incoming).await
    }

    fn error_response(&self, error: &S3Error) -> Response {
        let mut response = Response::error(error, self.request.path(), self.request_id);
        if let Some(refusal) = &self.effects.refusal {
            if refusal.body_bytes > 0 {
                response.body = Body::zeros(refusal.body_bytes);
            } else if refusal.empty {
                response.body = Body::Empty;
            }
        }
        response
    }

    async fn refuse(&self, connection: &mut Connection, error: &S3Error) -> io::Result<Outcome> {
        let mut response = self.error_response(error);
        response.close = true;
        let status = response.status;
        let date = self.server.now(self.effects).http();
        connection.respond(response, &Effects::default(), &date, self.request_id, 0.0).await?;
        Ok(Outcome { status, code: Some(error.code.to_string()), bytes_in: 0, bytes_out: 0, goes_on: false })
    }

    /// Whether this is an operation whose result S3 may keep waiting for after the head, and a fault asks for that.
    fn takes_time(&self) -> bool {
        let late = self.effects.error_in_200.is_some() || !self.effects.white_space.is_zero();
        let operation = matches!(
            self.operation,
            Operation::CompleteMultipartUpload | Operation::CopyObject | Operation::UploadPartCopy
        );
        late && operation
    }

    /// A head at once, white space for as long as the operation is said to take, then the document.
    async fn respond_late(&self, connection: &mut Connection, response: &Response) -> io::Result<bool> {
        let Body::Bytes(document) = &response.body else { return Ok(false) };
        let head = format!(
            "HTTP/1.1 200 OK\r\nx-amz-request-id: {}\r\nDate: {}\r\nContent-Type: application/xml\r\n\
             Transfer-Encoding: chunked\r\n\r\n",
            self.request_id,
            self.server.now(self.effects).http()
        );
        connection.write_raw(head.as_bytes()).await?;
        // The declaration must be the first thing in the document, as S3 sends it.
        let text = std::str::from_utf8(document).unwrap_or("");
        let (declaration, rest) = text.split_once('\n').unwrap_or(("", text));
        connection.write_raw(format!("{:x}\r\n{declaration}\r\n", declaration.len()).as_bytes()).await?;
        let until = Instant::now() + self.effects.white_space;
        while Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(50)).await;
            connection.write_raw(b"1\r\n \r\n").await?;
        }
        connection.write_raw(format!("{:x}\r\n{rest}\r\n0\r\n\r\n", rest.len()).as_bytes()).await?;
        Ok(!response.close)
    }

    async fn endless_head(&self, connection: &mut Connection) -> io::Result<Outcome> {
        connection.write_raw(b"HTTP/1.1 200 OK\r\n").await?;
        let line = format!("x-amz-meta-more: {}\r\n", "a".repeat(1000)).repeat(16);
        loop {
            connection.write_raw(line.as_bytes()).await?;
        }
    }
}

async fn handle(
    server: Arc<Server>,
    socket: StdStream,
    tls: Option<TlsAcceptor>,
    mut generation: watch::Receiver<u64>,
) {
    let Ok(socket) = TcpStream::from_std(socket) else { return };
    let id = server.stats.connection_opened();
    let stream = match tls {
        None => Some(Stream::Plain(socket)),
        Some(acceptor) => acceptor.accept(socket).await.ok().map(|tls| Stream::Tls(Box::new(tls))),
    };
    if let Some(stream) = stream {
        let mut connection = Connection::new(stream, server.stats.clone());
        tokio::select! {
            // A client that goes away is no error of the server's.
            _ = serve(&server, &mut connection, id) => {}
            _ = generation.changed() => connection.end(Ending::Reset, None).await,
        }
    }
    server.stats.connection_closed();
}

fn listen(port: u16) -> io::Result<StdListener> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    // So that a port can be taken again while connections of an earlier server linger.
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
    socket.listen(4096)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Accepts connections and hands them to the threads in turn.
async fn accept(
    server: Arc<Server>,
    listener: StdListener,
    threads: Vec<Handle>,
    tls: Option<TlsAcceptor>,
    mut outages: mpsc::UnboundedReceiver<Duration>,
) -> io::Result<()> {
    let port = listener.local_addr()?.port();
    let mut listener = TcpListener::from_std(listener)?;
    let mut turn = 0;
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let socket = match accepted {
                    Ok((socket, _)) => socket,
                    Err(_) => {
                        // Out of file descriptors: wait until some are free.
                        tokio::time::sleep(Duration::from_millis(10)).await;
                        continue;
                    }
                };
                socket.set_nodelay(true)?;
                let handling = handle(server.clone(), socket.into_std()?, tls.clone(), server.generation.subscribe());
                threads[turn % threads.len()].spawn(handling);
                turn += 1;
            }
            Some(duration) = outages.recv() => {
                drop(listener);
                server.generation.send_modify(|generation| *generation += 1);
                tokio::time::sleep(duration).await;
                listener = loop {
                    match listen(port).and_then(TcpListener::from_std) {
                        Ok(listener) => break listener,
                        Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                    }
                };
            }
        }
    }
}

/// The control API on its own port: no TLS, no faults, not counted, alive in an outage.
async fn accept_control(server: Arc<Server>, listener: StdListener) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (socket, _) = listener.accept().await?;
        let server = server.clone();
        tokio::spawn(async move {
            let mut connection = Connection::new(Stream::Plain(socket), Arc::new(Stats::new(0)));
            while let Ok(Some(request)) = connection.next_request(None).await {
                if !matches!(control::serve(&server, &mut connection, &request).await, Ok(true)) {
                    connection.close().await;
                    break;
                }
            }
        });
    }
}

fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

pub fn run(config: Config, on_ready: impl FnOnce(&ReadyInfo)) -> io::Result<()> {
    let store = Store::new(&config)?;
    let (outages, outage_requests) = mpsc::unbounded_channel();
    let server = Arc::new(Server {
        stats: Arc::new(Stats::new(config.log_capacity)),
        plan: Plan::default(),
        store,
        synthetic_checksums: Mutex::default(),
        requests: AtomicU64::new(0),
        salt: mix((now_s() * 1e3) as u64),
        rates: Mutex::default(),
        outages,
        generation: watch::Sender::new(0),
        config: RwLock::new(Arc::new(config.clone())),
    });
    for rule in config.faults.clone() {
        server.plan.add(rule);
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = if config.threads > 0 { config.threads } else { (cores / 2).max(1) };
    let listener = listen(config.port)?;
    let control = listen(config.control_port)?;
    let port = listener.local_addr()?.port();
    let (ca_file, acceptor) = if config.tls {
        let default = || std::env::temp_dir().join(format!("local-s3-ca-{}-{port}.pem", std::process::id()));
        let ca_file: PathBuf = config.ca_file.clone().unwrap_or_else(default);
        let names: Vec<String> = config.buckets.iter().map(|b| b.name.clone()).collect();
        let acceptor = tls::acceptor(&names, &ca_file)?;
        (Some(ca_file), Some(acceptor))
    } else {
        (None, None)
    };

    let (stop, stopped) = watch::channel(false);
    let main = runtime()?;
    let mut handles = vec![main.handle().clone()];
    let mut others = Vec::new();
    for number in 1..threads {
        let worker = runtime()?;
        handles.push(worker.handle().clone());
        let mut stopped = stopped.clone();
        let thread = std::thread::Builder::new().name(format!("local-s3-{number}"));
        others.push(thread.spawn(move || {
            worker.block_on(async {
                let _ = stopped.wait_for(|stopped| *stopped).await;
            });
        })?);
    }
    let credential = config.credentials.first().cloned().unwrap_or_default();
    let ready = ReadyInfo {
        endpoint: format!("{}://127.0.0.1:{port}", if config.tls { "https" } else { "http" }),
        port,
        control: format!("http://127.0.0.1:{}", control.local_addr()?.port()),
        region: config.region.clone(),
        access_key: credential.access_key,
        secret_key: credential.secret_key,
        ca_bundle: ca_file.as_ref().map(|path| path.to_string_lossy().into_owned()),
        pid: std::process::id(),
    };
    let result = main.block_on(async {
        let accepting = tokio::spawn(accept(server.clone(), listener, handles, acceptor, outage_requests));
        let controlling = tokio::spawn(accept_control(server.clone(), control));
        on_ready(&ready);
        tokio::select! {
            ended = accepting => ended.map_err(io::Error::other)?,
            ended = controlling => ended.map_err(io::Error::other)?,
            () = end_of_stdin(config.end_with_stdin) => Ok(()),
        }
    });
    stop.send_replace(true);
    for thread in others {
        // A thread that panicked has ended as well.
        let _ = thread.join();
    }
    if let Some(ca_file) = ca_file {
        // Its owner may have removed it already.
        let _ = std::fs::remove_file(ca_file);
    }
    result
}

async fn end_of_stdin(watched: bool) {
    let (ended, end) = tokio::sync::oneshot::channel::<()>();
    if !watched {
        return std::future::pending().await;
    }
    std::thread::spawn(move || {
        let mut sink = [0; 256];
        let mut stdin = io::stdin().lock();
        while matches!(stdin.read(&mut sink), Ok(read) if read > 0) {}
        drop(ended);
    });
    // An error means that the sender was dropped, which is the signal.
    let _ = end.await;
}
