//! One request from its start to its end: attempts, what each failure means, and when to try again.
use crate::assembly::Part;
use crate::classify::classify;
use crate::client::{Client, Place};
use crate::failure::{Fault, Kind, Retry};
use crate::head::Head;
use crate::hedge::{self, Class};
use crate::http::{Connection, Sent};
use crate::lane::{Lane, Running};
use crate::pace::Pace;
use crate::raw::Span;
use crate::request::{Job, Op, Target};
use crate::session::{self, Session};
use crate::slot::{Phase, Slot};
use crate::stats::Record;
use crate::ticket::broken;
use crate::xml;
use std::any::Any;
use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

mod quota;
mod request_head;
mod retry;

pub use quota::Quota;

/// For answers that the service may take minutes over: Complete, Copy.
const LONG: Duration = Duration::from_secs(600);
const FIRST_BYTE: Duration = Duration::from_secs(10);
/// AWS advises to ask again when a GET of less than 512 KiB has not answered in 2 s.
const FIRST_BYTE_SMALL: Duration = Duration::from_secs(2);
pub const SMALL: u64 = 512 << 10;
const ERROR_BODY: usize = 256 << 10;

/// Serves a job to its end, whatever happens: a panic too becomes a result, never a hang.
pub async fn run_job(lane: &Rc<Lane>, job: Job, running: &Running) {
    let Job { ticket, op, grant } = job;
    let (queue, target, operation) = (ticket.queue().clone(), ticket.target.clone(), ticket.operation);
    let slot = lane.slot(&queue, ticket.index);
    let mut ticket = Some(ticket);
    let mut attempts = Attempts::new(lane, &queue.client, &slot, operation, &target);
    let work = async {
        match op {
            Op::Fetch(fetch) => crate::fetch::run(&mut attempts, &mut ticket, fetch, grant, running).await,
            Op::Call(call) => {
                let outcome = crate::call::run(&mut attempts, *call).await;
                Some((outcome, grant))
            }
        }
    };
    let result = catch_unwind(work).await;
    let Some(ticket) = ticket else { return };
    lane.finish(match result {
        Ok(Some((outcome, grant))) => ticket.finish(outcome, grant),
        Ok(None) => return,
        Err(text) => ticket.fail(broken(operation, &target, &text)),
    });
}

/// Likewise one range of a result.
pub async fn run_part(lane: &Rc<Lane>, part: Part) {
    let assembly = part.assembly.clone();
    let slot = lane.slot(&assembly.queue, assembly.index);
    let mut attempts = Attempts::new(lane, &assembly.queue.client, &slot, "GetObject", &assembly.target);
    let result = catch_unwind(crate::fetch::run_part(&mut attempts, &part)).await;
    let result = result.unwrap_or_else(|text| Err(Box::new(broken("GetObject", &assembly.target, &text))));
    if let Some(finished) = part.end(result) {
        lane.finish(finished);
    }
}

pub async fn catch_unwind<T>(future: impl Future<Output = T>) -> Result<T, String> {
    let mut future = std::pin::pin!(future);
    poll_fn(|cx| match std::panic::catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(poll) => poll.map(Ok),
        Err(panic) => Poll::Ready(Err(text_of(panic))),
    })
    .await
}

/// What a panic says.
pub fn text_of(panic: Box<dyn Any + Send>) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}

/// The bookkeeping of one request over its attempts.
pub struct Attempts<'a> {
    pub lane: &'a Rc<Lane>,
    pub client: &'a Arc<Client>,
    pub slot: &'a Slot,
    pub operation: &'static str,
    pub target: &'a Target,
    started: Instant,
    /// Attempts begun, for the log and for the user.
    pub sent: u32,
    /// Failures that count against max_attempts.
    counted: u32,
    corrected: u32,
    stale: u32,
    throttled: u32,
    causes: Vec<String>,
    /// The next attempt takes no idle connection, and another address where there is one.
    fresh: bool,
    avoid: Option<SocketAddr>,
    /// How often this attempt was called off and sent again.
    hedged: u32,
    /// When the last attempt was sent, and beside how many.
    turn: Option<Turn<'a>>,
    /// The last attempt had a connection.
    reached: bool,
    /// Why requests have to wait for their turn, where that was told.
    refusal: Option<Box<Fault>>,
    credentials_version: Cell<u64>,
    /// What the last attempt was signed with, where that was not the client's own keys.
    pub session: Option<Arc<Session>>,
}

struct Turn<'a> {
    pace: &'a Pace,
    sent: Instant,
    crowd: usize,
}

/// A response whose head has come. It ends in `end` or in `abandon`, which note it in statistics and log.
pub struct Exchange {
    pub connection: Connection,
    pub head: Head,
    /// Of the body, as far as it was read: whoever reads it keeps count.
    pub bytes_in: u64,
    place: Arc<Place>,
    began: Instant,
    ttfb: Duration,
    range: String,
    bytes_out: u64,
}

/// One request as it is sent.
pub struct Request<'a> {
    pub method: &'static str,
    /// Canonical.
    pub query: &'a str,
    /// To be signed; names in lower case.
    pub headers: &'a [(&'a str, &'a str)],
    /// Not signed.
    pub range: Option<String>,
    pub if_match: Option<&'a str>,
    pub body: Span,
    pub first_byte: FirstByte,
    /// May be called off and sent again, since it only reads; with others of its kind it takes as long.
    pub hedge: Option<Class>,
}

/// How long the first byte may take.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum FirstByte {
    Usual,
    /// A GET of known, small size: ask again soon, then more patiently.
    Small,
    Long,
}

impl<'a> Attempts<'a> {
    pub fn new(
        lane: &'a Rc<Lane>,
        client: &'a Arc<Client>,
        slot: &'a Slot,
        operation: &'static str,
        target: &'a Target,
    ) -> Attempts<'a> {
        Attempts {
            lane,
            client,
            slot,
            operation,
            target,
            started: Instant::now(),
            sent: 0,
            counted: 0,
            corrected: 0,
            stale: 0,
            throttled: 0,
            causes: Vec::new(),
            fresh: false,
            avoid: None,
            hedged: 0,
            turn: None,
            reached: false,
            refusal: None,
            credentials_version: Cell::new(0),
            session: None,
        }
    }

    /// Sends a request and reads the head of its answer. Answers that are no success are faults.
    pub async fn exchange(&mut self, request: &Request<'_>) -> Result<Exchange, Fault> {
        let (mut began, before) = (Instant::now(), self.sent);
        self.reached = false;
        match self.try_exchange(request, &mut began).await {
            Ok(exchange) if exchange.head.status / 100 == 2 => {
                self.answered();
                Ok(exchange)
            }
            Ok(exchange) => {
                let fault = self.refused(exchange, request.method == "HEAD").await;
                if fault.status < 500 && fault.retry != Retry::Throttle {
                    self.answered();
                }
                Err(fault)
            }
            Err(fault) => {
                if self.sent > before {
                    self.log(began, None, request.range.as_deref().unwrap_or_default(), Some(&fault));
                }
                Err(fault)
            }
        }
    }

    /// The service does not ask for less.
    fn answered(&self) {
        if let Some(turn) = &self.turn {
            turn.pace.answered(self.client.settings.max_connections);
        }
    }

    /// `began`: when its turn came.
    async fn try_exchange(&mut self, request: &Request<'_>, began: &mut Instant) -> Result<Exchange, Fault> {
        let client = self.client;
        let route = &self.target.route;
        if self.slot.is_cancelled() {
            return Err(Fault::cancelled());
        }
        self.session = session::obtain(self).await?;
        let pace = if matches!(request.method, "GET" | "HEAD") { &route.reads } else { &route.writes };
        // Until the answer begins.
        let permit = match pace.try_enter() {
            Some(permit) => permit,
            None => {
                let permit = self.wait_for_turn(pace).await?;
                *began = Instant::now();
                permit
            }
        };
        let place = route.place();
        let (fresh, avoid) = (std::mem::take(&mut self.fresh), self.avoid.take());
        let head = self.head_of(request, &place)?;
        self.sent += 1; // an attempt that finds no connection is one too
        let connections = &self.lane.connections;
        let mut connection =
            connections.checkout(&self.lane.engine, client, route.tls, &place, fresh, avoid, self.slot).await?;
        let reused = connection.uses > 0;
        connection.uses += 1;
        client.stats.count(self.operation);
        let sent_at = Instant::now();
        self.reached = true;
        self.turn = Some(Turn { pace, sent: sent_at, crowd: permit.crowd });
        let result = self.roundtrip(&mut connection, request, &head).await;
        let bytes_out = request.body.len() as u64;
        client.stats.bytes_out.fetch_add(bytes_out, Relaxed);
        let head = match result {
            Ok(Some(head)) => head,
            Ok(None) if reused => return self.lost(Fault::new(Kind::Transport, Retry::Stale, "closed while idle")),
            Ok(None) => return self.lost(Fault::transport("closed without an answer")),
            Err(fault) if reused && fault.kind == Kind::Transport => {
                return self.lost(Fault { retry: Retry::Stale, ..fault });
            }
            Err(fault) => {
                if matches!(fault.kind, Kind::FirstByteTimeout | Kind::StallTimeout) {
                    self.avoid = connection.peer();
                }
                if let (Retry::Hedged, Some(class)) = (fault.retry, request.hedge) {
                    client.hedges.learn(class, sent_at.elapsed()); // it would have taken longer still
                }
                return self.lost(fault);
            }
        };
        let ttfb = sent_at.elapsed();
        client.stats.ttfb.add(ttfb);
        if let Some(class) = request.hedge {
            client.hedges.learn(class, ttfb);
        }
        let range =
            if self.lane.engine.log.enabled() { request.range.clone().unwrap_or_default() } else { String::new() };
        Ok(Exchange { connection, head, bytes_in: 0, place, began: *began, ttfb, range, bytes_out })
    }

    fn lost<T>(&self, fault: Fault) -> Result<T, Fault> {
        self.client.stats.connections_open.fetch_sub(1, Relaxed);
        Err(fault)
    }

    async fn roundtrip(
        &self,
        connection: &mut Connection,
        request: &Request<'_>,
        head: &[u8],
    ) -> Result<Option<Head>, Fault> {
        let settings = &self.client.settings;
        self.slot.enter(Phase::Sending, Some(settings.stall_timeout));
        let sent = connection.send(self.slot, head, request.body).await?;
        let usual = settings.first_byte_timeout.unwrap_or(FIRST_BYTE);
        let (phase, deadline) = match request.first_byte {
            FirstByte::Usual => (Phase::FirstByte, usual),
            FirstByte::Long => (Phase::Long, LONG.max(usual)),
            FirstByte::Small if settings.first_byte_timeout.is_some() => (Phase::FirstByte, usual),
            FirstByte::Small => (Phase::FirstByte, (FIRST_BYTE_SMALL * 2u32.pow(self.counted.min(3))).min(usual)),
        };
        self.slot.enter(phase, Some(deadline));
        if let Some(class) = request.hedge.filter(|_| self.hedged < hedge::MOST) {
            self.slot.hedge_after(self.client.hedges.delay(class, self.hedged));
        }
        let is_head = request.method == "HEAD";
        let mut answer = connection.read_head(self.slot, is_head).await;
        if matches!(&answer, Err(fault) if fault.retry == Retry::Hedged) && connection.has_news() {
            // It had begun by then, and only this thread was late to see it.
            self.slot.enter(phase, Some(deadline));
            answer = connection.read_head(self.slot, is_head).await;
        }
        let answer = answer?;
        if phase != Phase::Long {
            self.slot.enter(Phase::Receiving, Some(settings.stall_timeout));
        }
        Ok(answer.map(|mut head| {
            head.keep_alive &= matches!(sent, Sent::All);
            head
        }))
    }

    /// Whether the service may have carried the last attempt out, though it failed.
    pub fn may_be_done(&self, fault: &Fault) -> bool {
        let lost = fault.status == 0 && self.reached || fault.status >= 500 || fault.status / 100 == 2;
        lost && !matches!(fault.retry, Retry::Throttle | Retry::Never) || fault.kind == Kind::Cancelled && self.reached
    }

    /// Reads an answer that is no success.
    async fn refused(&mut self, mut exchange: Exchange, is_head: bool) -> Fault {
        let read = exchange.connection.read_all(self.slot, exchange.head.length, ERROR_BODY).await;
        exchange.bytes_in = read.as_ref().map_or(0, Vec::len) as u64;
        let head = &exchange.head;
        let xml = read.as_deref().ok().and_then(xml::parse_error).unwrap_or_default();
        let region = if head.region.is_empty() { xml.region.clone().unwrap_or_default() } else { head.region.clone() };
        let mut fault = classify(head.status, &xml.code, is_head);
        fault.message = match (xml.message.is_empty(), &read) {
            (false, _) => xml.message,
            (true, Err(e)) => format!("an error without a readable body: {}", e.message),
            (true, Ok(_)) => fault.message,
        };
        if let Some(about) = xml.about {
            fault.message = format!("{} ({about})", fault.message);
            fault.about = about;
        }
        fault.code = xml.code;
        fault.request_id =
            if head.request_id.is_empty() { xml.request_id.unwrap_or_default() } else { head.request_id.clone() };
        fault.host_id = head.host_id.clone();
        fault.retry_after_s = head.retry_after_s;
        fault.object_size = xml.actual_object_size.or(head.content_range.and_then(|r| r.total));
        let route = &self.target.route;
        if fault.kind == Kind::Credentials && self.session.is_some() {
            fault.retry = Retry::Corrected; // with another session
        }
        if fault.kind == Kind::Redirect {
            if route.correct_region(&region) {
                fault.retry = Retry::Corrected;
            } else if fault.status == 400 && route.place().region == region {
                fault.retry = Retry::Corrected; // another request has corrected it meanwhile
            }
            fault.region = region;
        } else if fault.code == "RequestTimeTooSkewed"
            && let Some(theirs) = head.date
        {
            let ours = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64);
            route.clock_offset_s.store(theirs - ours, Relaxed);
            fault.retry = Retry::Corrected;
        }
        if read.is_ok() {
            self.end(exchange, Some(&fault));
        } else {
            self.abandon(exchange, Some(&fault));
        }
        fault
    }

    /// A response was read to its end: its connection serves others. `fault`: it tells of one all the same.
    pub fn end(&self, exchange: Exchange, fault: Option<&Fault>) {
        let duration = exchange.began.elapsed();
        self.client.stats.latency.add(duration);
        self.client.stats.network_wait_us.fetch_add(duration.as_micros() as u64, Relaxed);
        self.note(&exchange, fault);
        let Exchange { mut connection, head, place, .. } = exchange;
        let route = &self.target.route;
        if head.keep_alive && !self.client.closed.load(Relaxed) && connection.is_reusable(Instant::now()) {
            self.lane.connections.put_back(self.client, route.tls, &place, connection);
        } else {
            self.client.stats.connections_open.fetch_sub(1, Relaxed);
        }
    }

    /// A response was not read to its end, because of a fault or because more came than is wanted: its connection is of no use.
    pub fn abandon(&self, exchange: Exchange, fault: Option<&Fault>) {
        self.note(&exchange, fault);
        self.client.stats.connections_open.fetch_sub(1, Relaxed);
        drop(exchange);
    }

    fn note(&self, exchange: &Exchange, fault: Option<&Fault>) {
        if exchange.head.status / 100 == 2 {
            self.client.stats.bytes_in.fetch_add(exchange.bytes_in, Relaxed);
        }
        self.log(exchange.began, Some(exchange), &exchange.range, fault);
    }

    /// Every attempt leaves one record, however it ends.
    fn log(&self, began: Instant, answer: Option<&Exchange>, range: &str, fault: Option<&Fault>) {
        let log = &self.lane.engine.log;
        if log.enabled() {
            log.push(Record {
                operation: self.operation,
                bucket: self.target.route.bucket.clone(),
                key: self.target.key.to_string(),
                range: range.to_owned(),
                attempt: self.sent,
                status: answer.map_or(0, |a| a.head.status),
                request_id: answer.map_or_else(String::new, |a| a.head.request_id.clone()),
                ttfb_s: answer.map_or(0.0, |a| a.ttfb.as_secs_f64()),
                duration_s: began.elapsed().as_secs_f64(),
                bytes_in: answer.map_or(0, |a| a.bytes_in),
                bytes_out: answer.map_or(0, |a| a.bytes_out),
                error: fault.map_or_else(String::new, ToString::to_string),
            });
        }
    }
}
