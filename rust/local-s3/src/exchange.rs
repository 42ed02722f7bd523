//! A request's way from its head to its answer.
use crate::config::Config;
use crate::connection::Connection;
use crate::control;
use crate::date::Timestamp;
use crate::error::{Answer, Failure, S3Error};
use crate::faults::{Call as FaultCall, Effects, fingerprint};
use crate::incoming::Incoming;
use crate::operations::directory_buckets::authenticate;
use crate::operations::{Call, Operation};
use crate::request::{Query, Request, Target};
use crate::response::{Body, Response};
use crate::server::Server;
use crate::stats::{Entry, SentHead, now_s};
use crate::store::content::mix;
use std::io;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

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

pub async fn serve(server: &Server, connection: &mut Connection, id: u64) -> io::Result<()> {
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
        if let Some(outage) = effects.outage {
            server.outage(outage);
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
            let mut incoming = match Incoming::of(connection, self.request, effects, bandwidth) {
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
        if effects.compressed {
            response.compress().await?;
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

    async fn answer(&self, incoming: &mut Incoming<'_>, now: Timestamp) -> Answer<Response> {
        let Self { server, config, request, effects, .. } = *self;
        if let Some(refusal) = &effects.refusal {
            let most = refusal.early_at.unwrap_or(u64::MAX);
            if refusal.early_at.is_some() || !incoming.is_waited_for() {
                incoming.skip(most).await?;
            }
            return Err(refusal.error.clone().into());
        }
        if server.is_over_rate(config, self.operation, self.target, self.query) {
            incoming.skip(u64::MAX).await?;
            return Err(S3Error::new(503, "SlowDown", "Please reduce your request rate.").into());
        }
        let sender = authenticate(server, request, self.query, config, self.operation, self.target, now)?;
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
