//! Sessions with directory buckets (S3 Express One Zone): keys for one bucket, had with the client's own, that last five minutes.
//!
//! Whichever request finds none makes one, and the others of the bucket wait for it; whichever finds an old one replaces it
//! while the others go on with the old one. No timer, and no thread of Python's, which may be busy for minutes.
//!
//! Source: "Authorizing Zonal endpoint API operations with CreateSession" of the Amazon S3 user guide.
use crate::attempt::{Attempts, FirstByte, Request};
use crate::connect::watched;
use crate::failure::{Failure, Fault, Kind, Retry};
use crate::raw::Span;
use crate::request::Target;
use crate::sign::Credentials;
use crate::slot::Phase;
use crate::xml;
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A session is replaced so long before its end, or in its last quarter if it is a short one.
const AHEAD: Duration = Duration::from_secs(60);
/// Within so long of its end nothing is signed with it any more: the request has to arrive, too.
const MARGIN: Duration = Duration::from_secs(10);
/// After a session that could not be replaced.
const AGAIN: Duration = Duration::from_secs(5);
const LONGEST_S: i64 = 3600;
const ANSWER_BODY: usize = 64 << 10;

/// These are signed with the client's own keys, says the service.
const WITHOUT: [&str; 4] = ["CreateSession", "CopyObject", "UploadPartCopy", "HeadBucket"];

/// One session, for as long as it lasts.
#[derive(Debug)]
pub struct Session {
    pub credentials: Credentials,
    replace_at: Instant,
    until: Instant,
}

impl Session {
    fn new(credentials: Credentials, lifetime: Duration, now: Instant) -> Session {
        Session {
            credentials,
            replace_at: now + lifetime - AHEAD.min(lifetime / 4),
            until: now + lifetime - MARGIN.min(lifetime / 10),
        }
    }
}

/// The sessions of one bucket, one after the other.
#[derive(Debug, Default)]
pub struct Sessions {
    /// Sent with CreateSession: how what is written will be encrypted.
    headers: Vec<(String, String)>,
    current: RwLock<Option<Arc<Session>>>,
    /// Held by the request that makes a session.
    making: tokio::sync::Mutex<()>,
}

impl Sessions {
    pub fn new(headers: Vec<(String, String)>) -> Sessions {
        Sessions { headers, ..Sessions::default() }
    }

    fn held(&self, now: Instant) -> Option<Arc<Session>> {
        let current = self.current.read().unwrap_or_else(|e| e.into_inner());
        current.as_ref().filter(|session| now < session.until).cloned()
    }

    fn hold(&self, session: Session) -> Arc<Session> {
        let session = Arc::new(session);
        *self.current.write().unwrap_or_else(|e| e.into_inner()) = Some(session.clone());
        session
    }

    /// The service would not have this session; another one is made unless that has happened already.
    fn forget(&self, refused: &Arc<Session>) {
        let mut current = self.current.write().unwrap_or_else(|e| e.into_inner());
        current.take_if(|session| Arc::ptr_eq(session, refused));
    }
}

/// What the next attempt is signed with; None: the client's own keys.
pub async fn obtain(attempts: &Attempts<'_>) -> Result<Option<Arc<Session>>, Fault> {
    let Some(sessions) = &attempts.target.route.sessions else { return Ok(None) };
    if WITHOUT.contains(&attempts.operation) {
        return Ok(None);
    }
    let now = Instant::now();
    let old = sessions.held(now);
    let _making = match &old {
        Some(session) if now < session.replace_at => return Ok(old),
        Some(_) => match sessions.making.try_lock() {
            Ok(making) => making,
            Err(_) => return Ok(old),
        },
        None => {
            attempts.slot.enter(Phase::Paused, None);
            watched(attempts.slot, async { Ok(sessions.making.lock().await) }).await?
        }
    };
    // Whoever had the lock before may have made one.
    if let Some(session) = sessions.held(Instant::now()).filter(|session| Instant::now() < session.replace_at) {
        return Ok(Some(session));
    }
    match (Box::pin(create(attempts, sessions, old.is_none())).await, old) {
        (Ok(session), _) => Ok(Some(sessions.hold(session))),
        (Err(fault), Some(old)) if fault.kind != Kind::Cancelled => {
            let session =
                Session { credentials: old.credentials.clone(), replace_at: Instant::now() + AGAIN, until: old.until };
            Ok(Some(sessions.hold(session)))
        }
        (Err(fault), _) => Err(fault),
    }
}

/// After a refusal: whether a session was to blame, so that another one will be made.
pub fn forget(attempts: &Attempts<'_>) -> bool {
    match (&attempts.target.route.sessions, &attempts.session) {
        (Some(sessions), Some(session)) => {
            sessions.forget(session);
            true
        }
        _ => false,
    }
}

/// `patient`: there is no session to go on with, so it is tried as often as any request.
async fn create(of: &Attempts<'_>, sessions: &Sessions, patient: bool) -> Result<Session, Fault> {
    let target = Target { route: of.target.route.clone(), key: "".into(), version: None };
    let mut attempts = Attempts::new(of.lane, of.client, of.slot, "CreateSession", &target);
    let headers: Vec<(&str, &str)> = sessions.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    loop {
        let fault = match once(&mut attempts, &headers).await {
            Ok(session) => return Ok(session),
            Err(fault) => fault,
        };
        if !patient {
            return Err(fault);
        }
        attempts.after(fault).await.map_err(|failure| explained(*failure))?;
    }
}

async fn once(attempts: &mut Attempts<'_>, headers: &[(&str, &str)]) -> Result<Session, Fault> {
    let request = Request {
        method: "GET",
        query: "session=",
        headers,
        range: None,
        if_match: None,
        body: Span::EMPTY,
        first_byte: FirstByte::Usual,
        hedge: None,
    };
    let mut exchange = attempts.exchange(&request).await?;
    let answer = match exchange.connection.read_all(attempts.slot, exchange.head.length, ANSWER_BODY).await {
        Ok(answer) => answer,
        Err(fault) => {
            attempts.abandon(exchange, Some(&fault));
            return Err(fault);
        }
    };
    exchange.bytes_in = answer.len() as u64;
    let session = read(&answer, exchange.head.date);
    attempts.end(exchange, session.as_ref().err());
    session
}

fn read(answer: &[u8], date: Option<i64>) -> Result<Session, Fault> {
    let session = xml::parse_session(answer)
        .map_err(|e| Fault::transport(format_args!("an answer to CreateSession that cannot be read: {e}")))?;
    // By the service's clock: ours may be off.
    let now_s = date.unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64));
    let lifetime_s = session.expires_s.saturating_sub(now_s).clamp(0, LONGEST_S);
    if lifetime_s == 0 {
        return Err(Fault::transport("the session that CreateSession answered is over already"));
    }
    Ok(Session::new(session.credentials, Duration::from_secs(lifetime_s as u64), Instant::now()))
}

/// What the request that wanted a session fails with.
fn explained(failure: Failure) -> Fault {
    let advice = if failure.kind == Kind::AccessDenied { "; a policy must allow s3express:CreateSession" } else { "" };
    let retry = if failure.retries_exhausted { Retry::Spent } else { Retry::Never };
    let message = format!("no session with the directory bucket: {}{advice}", failure.message);
    Fault {
        status: failure.status,
        code: failure.code,
        request_id: failure.request_id,
        host_id: failure.host_id,
        region: failure.region,
        ..Fault::new(failure.kind, retry, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(lifetime_s: u64, now: Instant) -> Session {
        let credentials = Credentials {
            access_key: "A".into(),
            secret_key: "S".into(),
            session_token: Some("T".into()),
            of_session: true,
        };
        Session::new(credentials, Duration::from_secs(lifetime_s), now)
    }

    #[test]
    fn a_session_is_replaced_well_before_it_ends() {
        let now = Instant::now();
        let after = |at: Instant| (at - now).as_secs_f64();
        let five_minutes = session(300, now);
        assert_eq!((after(five_minutes.replace_at), after(five_minutes.until)), (240.0, 290.0));
        let short = session(4, now);
        assert_eq!((after(short.replace_at), after(short.until)), (3.0, 3.6));
    }

    #[test]
    fn one_that_was_refused_is_forgotten_once() {
        let sessions = Sessions::new(Vec::new());
        let now = Instant::now();
        let first = sessions.hold(session(300, now));
        assert!(sessions.held(now).is_some());
        let second = sessions.hold(session(300, now));
        sessions.forget(&first);
        assert!(sessions.held(now).is_some());
        sessions.forget(&second);
        assert!(sessions.held(now).is_none());
        let _over = sessions.hold(session(300, now));
        assert!(sessions.held(now + Duration::from_secs(291)).is_none());
    }
}
