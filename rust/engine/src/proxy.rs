//! Which hosts are reached by way of a proxy, and how it is asked: tunnels for TLS, whole URLs for plain HTTP (Squid as it
//! comes allows tunnels to port 443 alone).
use crate::failure::{Fault, Kind, Retry};
use crate::head::Head;
use std::fmt;
use std::net::IpAddr;

/// A proxy, and the hosts that are reached without it. Fixed with the client, so that its connections need no other key.
#[derive(Debug, Default)]
pub struct Proxies {
    proxy: Option<Proxy>,
    exceptions: Vec<Exception>,
}

pub struct Proxy {
    pub host: String,
    pub port: u16,
    /// Value of Proxy-Authorization.
    authorization: Option<String>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "proxy http://{}:{}", self.host, self.port)
    }
}

/// One item of NO_PROXY.
#[derive(Debug, PartialEq, Eq)]
struct Exception {
    hosts: Hosts,
    port: Option<u16>,
}

#[derive(Debug, PartialEq, Eq)]
enum Hosts {
    All,
    /// Addresses that begin with so many bits.
    Net(IpAddr, u32),
    /// This one and what lies beneath it; in lower case.
    Domain(String),
}

impl Proxies {
    /// `no_proxy` as it stands in the environment: items that nobody understands match nothing.
    pub fn new(host: String, port: u16, authorization: Option<String>, no_proxy: &str) -> Proxies {
        let exceptions = no_proxy.split([',', ' ']).filter_map(|item| Exception::parse(item.trim())).collect();
        Proxies { proxy: Some(Proxy { host, port, authorization }), exceptions }
    }

    /// The way to a host; `None`: straight.
    pub fn to(&self, host: &str, port: u16) -> Option<&Proxy> {
        let proxy = self.proxy.as_ref()?;
        let host = bare(host).to_ascii_lowercase();
        let host = host.trim_end_matches('.');
        (!self.exceptions.iter().any(|e| e.holds_for(host, port))).then_some(proxy)
    }
}

fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host)
}

impl Exception {
    fn parse(item: &str) -> Option<Exception> {
        let all = |port| Some(Exception { hosts: Hosts::All, port });
        if item == "*" {
            return all(None);
        }
        let net = |text: &str, port| Some(Exception { hosts: parse_net(text)?, port });
        if let Some(exception) = net(bare(item), None) {
            return Some(exception);
        }
        let (name, port) = match item.rsplit_once(':') {
            Some((name, port)) => (name, Some(port.parse().ok()?)),
            None => (item, None),
        };
        if let Some(exception) = net(bare(name), port) {
            return Some(exception);
        }
        if name == "*" {
            return all(port);
        }
        let name = name.strip_prefix("*.").unwrap_or(name).trim_matches('.').to_ascii_lowercase();
        (!name.is_empty()).then_some(Exception { hosts: Hosts::Domain(name), port })
    }

    fn holds_for(&self, host: &str, port: u16) -> bool {
        if self.port.is_some_and(|only| only != port) {
            return false;
        }
        match &self.hosts {
            Hosts::All => true,
            Hosts::Net(net, bits) => host.parse().is_ok_and(|ip: IpAddr| is_within(ip, *net, *bits)),
            // An address has no domains above it.
            Hosts::Domain(name) => match host.strip_suffix(name.as_str()) {
                Some("") => true,
                Some(rest) => rest.ends_with('.') && host.parse::<IpAddr>().is_err(),
                None => false,
            },
        }
    }
}

/// "10.0.0.0/8", "fd00::/8" or a single address.
fn parse_net(text: &str) -> Option<Hosts> {
    let (ip, bits) = text.split_once('/').map_or((text, None), |(ip, bits)| (ip, Some(bits)));
    let ip: IpAddr = bare(ip).parse().ok()?;
    let most = if ip.is_ipv4() { 32 } else { 128 };
    let bits = bits.map_or(Some(most), |bits| bits.parse().ok().filter(|bits| *bits <= most))?;
    Some(Hosts::Net(ip, bits))
}

fn is_within(ip: IpAddr, net: IpAddr, bits: u32) -> bool {
    let same = |a: u128, b: u128, of: u32| bits == 0 || (a ^ b) >> (of - bits) == 0;
    match (ip, net) {
        (IpAddr::V4(ip), IpAddr::V4(net)) => same(ip.to_bits().into(), net.to_bits().into(), 32),
        (IpAddr::V6(ip), IpAddr::V6(net)) => same(ip.to_bits(), net.to_bits(), 128),
        _ => false,
    }
}

impl Proxy {
    fn authorization(&self) -> String {
        self.authorization.as_ref().map_or_else(String::new, |value| format!("proxy-authorization: {value}\r\n"))
    }

    /// What asks for a tunnel to a host.
    pub fn connect_request(&self, host: &str, port: u16, user_agent: &str) -> Vec<u8> {
        let credentials = self.authorization();
        let target = format!("{host}:{port}");
        format!("CONNECT {target} HTTP/1.1\r\nhost: {target}\r\nuser-agent: {user_agent}\r\n{credentials}\r\n")
            .into_bytes()
    }

    /// What an answer to that means.
    pub fn check_connected(&self, head: &Head, host: &str, port: u16) -> Result<(), Fault> {
        let said = reason(head);
        let (retry, text) = match head.status {
            200..300 => return Ok(()),
            407 => return Err(self.wants_credentials(head)),
            429 | 500.. => (Retry::Counted, format!("no connection to {host}:{port}: {said}")),
            _ => (Retry::Never, format!("it refuses to connect to {host}:{port}: {said}; allow that there")),
        };
        Err(self.fault(retry, text))
    }

    fn wants_credentials(&self, head: &Head) -> Fault {
        let text = match self.authorization {
            None => "it wants a user and a password: write them into its URL, http://user:password@host:port",
            Some(_) => "it does not take this user and password; special characters in its URL must be %-escaped",
        };
        self.fault(Retry::Never, format!("{text} ({})", reason(head)))
    }

    /// A fault on the way to the proxy or within it.
    pub fn blame(&self, fault: Fault) -> Fault {
        let kind = if fault.kind == Kind::Transport { Kind::Proxy } else { fault.kind };
        Fault { kind, message: format!("{self}: {}", fault.message), ..fault }
    }

    fn fault(&self, retry: Retry, text: String) -> Fault {
        Fault::new(Kind::Proxy, retry, text)
    }
}

/// Status and reason as the answer's first line has them.
fn reason(head: &Head) -> String {
    let line = head.raw.split(|b| *b == b'\n').next().unwrap_or_default();
    let text = String::from_utf8_lossy(line);
    let said = text.split_once(' ').map_or("", |(_, said)| said.trim());
    said.chars().filter(|c| !c.is_control()).take(80).collect()
}

/// How requests of a connection to a proxy are changed: they name the whole URL, and say who asks.
pub struct Forwarding {
    origin: String,
    authorization: String,
    asks_as: Proxy,
}

impl Forwarding {
    pub fn new(proxy: &Proxy, authority: &str) -> Forwarding {
        let asks_as = Proxy { host: proxy.host.clone(), authorization: proxy.authorization.clone(), ..*proxy };
        Forwarding { origin: format!("http://{authority}"), authorization: proxy.authorization(), asks_as }
    }

    pub fn rewrite(&self, head: &[u8]) -> Vec<u8> {
        let target = head.iter().position(|b| *b == b' ').map_or(0, |at| at + 1);
        let line = head.iter().position(|b| *b == b'\n').map_or(head.len(), |at| at + 1);
        let parts = [&head[..target], self.origin.as_bytes(), &head[target..line], self.authorization.as_bytes()];
        let mut out = parts.concat();
        out.extend_from_slice(&head[line..]);
        out
    }

    /// Tells answers of the proxy's own from the endpoint's, which are XML where they are errors.
    pub fn check(&self, head: &Head) -> Result<(), Fault> {
        if head.status == 407 {
            return Err(self.asks_as.blame(self.asks_as.wants_credentials(head)));
        }
        if head.status < 400 || !head.request_id.is_empty() || !announces(&head.raw, b"text/") {
            return Ok(());
        }
        let retry = if head.status >= 500 || head.status == 429 { Retry::Counted } else { Retry::Never };
        let text = format!("it answered for {}: {}", self.origin, reason(head));
        Err(self.asks_as.blame(self.asks_as.fault(retry, text)))
    }
}

/// Whether a head announces a body whose type begins so, in lower case.
pub fn announces(head: &[u8], kind: &[u8]) -> bool {
    head.split(|b| *b == b'\n').any(|line| {
        let line = line.to_ascii_lowercase();
        line.strip_prefix(b"content-type:").is_some_and(|value| value.trim_ascii().starts_with(kind))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::parse_head;

    fn goes_by_proxy(no_proxy: &str, host: &str, port: u16) -> bool {
        Proxies::new("p".into(), 3128, None, no_proxy).to(host, port).is_some()
    }

    #[test]
    fn names_hold_for_what_lies_beneath_them() {
        for item in ["example.com", ".example.com", "*.example.com", "EXAMPLE.com", "a, example.com ,b", "example.com."]
        {
            assert!(!goes_by_proxy(item, "example.com", 443), "{item}");
            assert!(!goes_by_proxy(item, "Bucket.example.com", 443), "{item}");
            assert!(!goes_by_proxy(item, "bucket.example.com.", 443), "{item}");
            assert!(goes_by_proxy(item, "notexample.com", 443), "{item}");
            assert!(goes_by_proxy(item, "example.com.org", 443), "{item}");
        }
        assert!(!goes_by_proxy("*", "anything", 1));
        assert!(!goes_by_proxy("x y", "y", 1));
        for nothing in ["", " , ,", ".", "*.", ":80", "host:port"] {
            assert!(goes_by_proxy(nothing, "host", 80), "{nothing}");
        }
        assert!(Proxies::default().to("host", 80).is_none());
    }

    #[test]
    fn a_port_narrows_it() {
        assert!(!goes_by_proxy("example.com:9000", "b.example.com", 9000));
        assert!(goes_by_proxy("example.com:9000", "b.example.com", 443));
        assert!(!goes_by_proxy("127.0.0.1:9000", "127.0.0.1", 9000));
        assert!(goes_by_proxy("127.0.0.1:9000", "127.0.0.1", 9001));
        assert!(!goes_by_proxy("[::1]:9000", "[::1]", 9000));
        assert!(goes_by_proxy("[::1]:9000", "[::1]", 9001));
    }

    #[test]
    fn addresses_and_networks() {
        for item in ["10.0.0.0/8", "10.1.2.3", "0.0.0.0/0", "10.1.2.3/32"] {
            assert!(!goes_by_proxy(item, "10.1.2.3", 80), "{item}");
        }
        for item in ["10.0.0.0/33", "10.1.2.4", "::/0", "1.2.3", "11.0.0.0/8", "2.3"] {
            assert!(goes_by_proxy(item, "10.1.2.3", 80), "{item}");
        }
        for item in ["::1", "[::1]", "::/0", "[::]/64", "0:0::1"] {
            assert!(!goes_by_proxy(item, "[::1]", 80), "{item}");
        }
        assert!(goes_by_proxy("fd00::/8", "[fe80::1]", 80));
        assert!(goes_by_proxy("10.0.0.0/8", "ten.example.com", 80));
    }

    fn head(text: &str) -> Head {
        parse_head(text.as_bytes(), true).unwrap().unwrap().1
    }

    #[test]
    fn requests_name_the_whole_url() {
        let proxy = Proxy { host: "p".into(), port: 1, authorization: Some("Basic eA==".into()) };
        let sent = Forwarding::new(&proxy, "h:9000").rewrite(b"GET /b/k?x=/ HTTP/1.1\r\nhost: h:9000\r\n\r\n");
        let wanted = "GET http://h:9000/b/k?x=/ HTTP/1.1\r\nproxy-authorization: Basic eA==\r\nhost: h:9000\r\n\r\n";
        assert_eq!(String::from_utf8(sent).unwrap(), wanted);
        let sent = proxy.connect_request("h", 443, "me");
        let wanted =
            "CONNECT h:443 HTTP/1.1\r\nhost: h:443\r\nuser-agent: me\r\nproxy-authorization: Basic eA==\r\n\r\n";
        assert_eq!(String::from_utf8(sent).unwrap(), wanted);
        assert!(!format!("{proxy:?} {proxy}").contains("eA"));
    }

    #[test]
    fn refusals_say_what_to_do() {
        let proxy = Proxy { host: "p".into(), port: 1, authorization: None };
        let told = |text: &str| proxy.check_connected(&head(text), "h", 443).unwrap_err();
        assert!(told("HTTP/1.1 407 Who are you\r\n\r\n").message.contains("user:password@"));
        assert_eq!(told("HTTP/1.1 403 Forbidden\r\n\r\n").retry, Retry::Never);
        let busy = told("HTTP/1.1 502 Bad Gateway\r\n\r\n");
        assert_eq!((busy.retry, busy.message.as_str()), (Retry::Counted, "no connection to h:443: 502 Bad Gateway"));
        assert!(proxy.check_connected(&head("HTTP/1.1 200 Connection established\r\n\r\n"), "h", 443).is_ok());
    }

    #[test]
    fn a_page_is_the_proxys_and_xml_the_endpoints() {
        let proxy = Proxy { host: "p".into(), port: 1, authorization: None };
        let forwarding = Forwarding::new(&proxy, "h");
        assert!(forwarding.check(&head("HTTP/1.1 403 Forbidden\r\nContent-Type: application/xml\r\n\r\n")).is_ok());
        assert!(
            forwarding.check(&head("HTTP/1.1 404 x\r\ncontent-type: text/html\r\nx-amz-request-id: 1\r\n\r\n")).is_ok()
        );
        let fault = forwarding.check(&head("HTTP/1.1 403 Forbidden\r\nContent-Type: text/html\r\n\r\n")).unwrap_err();
        assert_eq!(fault.message, "proxy http://p:1: it answered for http://h: 403 Forbidden");
    }
}
