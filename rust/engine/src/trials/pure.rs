//! Readers that only compute: heads, dates, checksums, NO_PROXY, XML; and keys on their way out.
use super::Trial;
use crate::checksum::{self, Algorithm};
use crate::date::{parse_http_date, parse_iso8601};
use crate::head::{Head, Length, MAX_HEADERS, parse_head};
use crate::proxy::{Forwarding, Proxies};
use crate::request::headers_of;
use crate::sign::{canonical_query, encode_key};
use crate::xml::{
    NO_STORAGE_CLASS, parse_complete, parse_copy, parse_delete, parse_error, parse_initiate, parse_list, parse_session,
    parse_uploads,
};

pub const HEAD: Trial = Trial {
    name: "head",
    run: head,
    rounds: 20_000,
    begin: &[
        b"HTTP/1.1 206 Partial Content\r\nContent-Length: 10\r\nETag: \"abc\"\r\ncontent-range: bytes 5-14/100\r\n\
          x-amz-request-id: R1\r\nLast-Modified: Wed, 12 Oct 2009 17:50:00 GMT\r\nConnection: keep-alive\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nDate: Wed, 12 Oct 2009 17:50:00 GMT\r\n\r\n",
        b"HTTP/1.0 503 Slow Down\nRetry-After: 1.5\nConnection: close, x\nx-amz-bucket-region: eu-west-1\n\n",
        b"HTTP/1.1 416 x\r\nContent-Range: bytes */7\r\nContent-Length: 0\r\n\r\n",
    ],
    splinters: &[
        b"\r\n",
        b"\n",
        b"\r",
        b":",
        b" ",
        b"\t",
        b"\0",
        b"\xff",
        b"\xc3\xa9",
        b"-1",
        b"+1",
        b"99999999999999999999",
        b",",
        b"chunked",
        b"Content-Length: 5\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"bytes ",
        b"*/",
        b"nan",
        b"inf",
        b"1e400",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"\r\n\r\n",
        b"Retry-After: -0\r\n",
    ],
};

pub const DATE: Trial = Trial {
    name: "date",
    run: date,
    rounds: 20_000,
    begin: &[
        b"Wed, 12 Oct 2009 17:50:00 GMT",
        b"Wednesday, 12-Oct-09 17:50:00 GMT",
        b"Wed Oct  2 17:50:00 2009",
        b"2009-10-12T17:50:30.000Z",
        b"2009-10-12T17:50:30Z",
        b"2000-02-29T23:59:60.999999999+14:00",
    ],
    splinters: &[
        b"0",
        b"9",
        b"99",
        b"00",
        b"-",
        b"+",
        b":",
        b".",
        b" ",
        b"T",
        b"Z",
        b"Feb",
        b"31",
        b"9999",
        b"99999999999999999999",
        b"\xff",
        b"\xc3\xa9",
        b"\0",
        b",",
        b"GMT",
    ],
};

pub const CHECKSUM: Trial = Trial {
    name: "checksum",
    run: checksums,
    rounds: 20_000,
    begin: &[b"", b"a", b"123456789", b"The quick brown fox jumps over the lazy dog", b"AAAAAA==", b"AAAAAAAAAAA="],
    splinters: &[b"\0", b"\0\0\0\0\0\0\0\0", b"\xff\xff\xff\xff", b"=", b"AAAA", b"\n", b"\x80"],
};

pub const NO_PROXY: Trial = Trial {
    name: "no_proxy",
    run: no_proxy,
    rounds: 20_000,
    begin: &[b"localhost,127.0.0.0/8,.example.com:443 [::1]:80,fd00::/8,*", b"*.a.b., c", b"10.0.0.1"],
    splinters: &[
        b",",
        b"*",
        b".",
        b":",
        b"/",
        b"[",
        b"]",
        b"::",
        b"/0",
        b"/129",
        b"/-1",
        b":65536",
        b" ",
        b"\xc3\xa9",
        b"%",
    ],
};

pub const XML: Trial = Trial {
    name: "xml",
    run: xml,
    rounds: 30_000,
    begin: &[
        b"<?xml version=\"1.0\"?><ListBucketResult xmlns='u'><EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>\
          <NextContinuationToken>t</NextContinuationToken><Contents><Key>a%20b+%C3%A9</Key><ETag>&quot;x&quot;</ETag><Size>1</Size>\
          <LastModified>2009-10-12T17:50:30.000Z</LastModified><StorageClass>STANDARD</StorageClass><RestoreStatus>\
          <IsRestoreInProgress>false</IsRestoreInProgress></RestoreStatus></Contents><CommonPrefixes><Prefix>p/</Prefix>\
          </CommonPrefixes></ListBucketResult>",
        b"<Error><Code>NoSuchKey</Code><Message>&lt;m&gt;</Message><ActualObjectSize>5</ActualObjectSize></Error>",
        b" <CompleteMultipartUploadResult><ETag>\"x\"</ETag><!-- c --><![CDATA[y]]></CompleteMultipartUploadResult>",
        b"<DeleteResult><Error><Key>&#x1F;</Key><Code>c</Code></Error></DeleteResult>",
        b"<ListMultipartUploadsResult><Upload><Key>k</Key><UploadId>u</UploadId></Upload></ListMultipartUploadsResult>",
        b"<CreateSessionResult><Credentials><SessionToken>t</SessionToken></Credentials></CreateSessionResult>",
    ],
    splinters: &[
        b"<",
        b">",
        b"&",
        b";",
        b"/",
        b"\"",
        b"'",
        b"<![CDATA[",
        b"]]>",
        b"<!--",
        b"-->",
        b"<?",
        b"?>",
        b"&#x",
        b"%",
        b"%C3",
        b"\xff",
        b"\0",
        b"</Key>",
        b"<a:b c='",
    ],
};

pub const KEY: Trial = Trial {
    name: "key",
    run: key,
    rounds: 5_000,
    begin: &[b"images/cat 1.jpg", b"a//b/../c", "é+%2F&=?#\u{1f600}".as_bytes(), b"uploadId=x&partNumber=1"],
    splinters: &[b"/", b"%", b"\r\n", b"\0", b"\xc3\xa9", b"&", b"=", b"~", b"[", b"A"],
};

fn head(bytes: &[u8]) {
    for is_head in [false, true] {
        let Ok(Some((len, head))) = parse_head(bytes, is_head) else { continue };
        assert!(len <= bytes.len() && head.raw[..] == bytes[..len]);
        assert!(head.raw.iter().filter(|b| **b == b':').count() <= len && MAX_HEADERS < 100);
        assert!(head.retry_after_s.is_none_or(|s| s.is_finite() && s >= 0.0));
        assert!(!is_head || head.length == Length::Fixed(0));
        assert!(!(head.keep_alive && head.length == Length::UntilClose));
        if let Some(range) = head.content_range.and_then(|r| r.range) {
            assert!(range.0 <= range.1 && range.1 < u64::MAX);
        }
        assert!(headers_of(&head.raw).len() <= MAX_HEADERS);
        behind_proxies(&head);
        // What was complete stays so, and the same, whatever follows.
        let longer = [bytes, b"HTTP/1.1 500 x\r\nContent-Length: 9\r\n\r\n"].concat();
        let again = parse_head(&longer, is_head);
        assert!(matches!(again, Ok(Some((n, again))) if n == len && again.length == head.length));
        // And it was not complete before its last byte.
        assert!(!matches!(parse_head(&bytes[..len - 1], is_head), Ok(Some(_))));
    }
}

/// What is made of it where it came by way of a proxy.
fn behind_proxies(head: &Head) {
    let proxies = Proxies::new("p".to_owned(), 1, Some("Basic secret".to_owned()), "");
    let Some(proxy) = proxies.to("h", 443) else { unreachable!("nothing is excepted") };
    let connected = proxy.check_connected(head, "h", 443);
    assert_eq!(connected.is_ok(), head.status / 100 == 2);
    let forwarding = Forwarding::new(proxy, "h");
    for fault in [connected.err(), forwarding.check(head).err()].into_iter().flatten() {
        assert!(!fault.message.contains("secret") && !fault.message.contains(['\r', '\n']), "{}", fault.message);
    }
}

fn date(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for seconds in [parse_http_date(text), parse_iso8601(text)].into_iter().flatten() {
        assert!(seconds.unsigned_abs() < 1 << 40, "{text:?} is {seconds}");
    }
}

/// Bit by bit, as the definition has it.
fn slow_crc(algorithm: Algorithm, bytes: &[u8]) -> u64 {
    let polynomial = match algorithm {
        Algorithm::Crc64Nvme => 0x9a6c_9329_ac4b_c9b5,
        Algorithm::Crc32c => 0x82f6_3b78,
        Algorithm::Crc32 => 0xedb8_8320,
    };
    let ones = u64::MAX >> (64 - 8 * algorithm.width_bytes());
    let step = |crc: u64, _| if crc & 1 == 1 { crc >> 1 ^ polynomial } else { crc >> 1 };
    bytes.iter().fold(ones, |crc, byte| (0..8).fold(crc ^ u64::from(*byte), step)) ^ ones
}

/// The first byte says where the rest is cut, again and again.
fn checksums(bytes: &[u8]) {
    let (step, data) = bytes.split_first().map_or((1, bytes), |(b, data)| (usize::from(*b) + 1, data));
    for algorithm in Algorithm::ALL {
        let of = |data| checksum::checksum(algorithm, data);
        let whole = of(data);
        assert_eq!(whole, slow_crc(algorithm, data));
        let pieces = data.chunks(step);
        let joined = pieces.clone().fold(0, |crc, next| checksum::combine(algorithm, crc, of(next), next.len() as u64));
        let mut digest = checksum::Digest::new(algorithm);
        pieces.for_each(|piece| digest.update(piece));
        assert_eq!((joined, digest.value(), digest.len_bytes()), (whole, whole, data.len() as u64));
        assert_eq!(checksum::decode(algorithm, &checksum::encode(algorithm, whole)), Some(whole));
        // Lengths that no memory has.
        let _ = checksum::combine(algorithm, whole, whole, u64::MAX);
        if let Ok(text) = std::str::from_utf8(data)
            && let Some(value) = checksum::decode(algorithm, text)
        {
            assert_eq!(checksum::encode(algorithm, value), text.trim_ascii());
        }
    }
}

fn no_proxy(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let proxies = Proxies::new("p".to_owned(), 1, None, text);
    for host in ["localhost", "[::1]", "127.0.0.1", "a.example.com.", text] {
        let _ = proxies.to(host, 443);
    }
}

/// Every reader of documents.
pub fn xml(document: &[u8]) {
    if let Ok(page) = parse_list(document) {
        assert!(std::str::from_utf8(&page.keys).is_ok());
        for column in [page.sizes.len(), page.mtimes.len(), page.etag_ends.len(), page.storage_classes.len()] {
            assert_eq!(column, page.len());
        }
        for index in 0..page.len() {
            assert!(std::str::from_utf8(page.key(index)).is_ok());
            assert!(std::str::from_utf8(page.etag(index)).is_ok());
            let class = page.storage_classes[index];
            assert!(class == NO_STORAGE_CLASS || usize::from(class) < page.class_names.len());
        }
        assert!(page.restore_status.iter().all(|status| (status.index as usize) < page.len()));
        let texts = page.common_prefixes.iter().chain(&page.class_names).map(String::len).sum::<usize>();
        assert!(page.keys.len() + page.etags.len() + texts <= document.len());
    }
    for error in [
        parse_uploads(document).err(),
        parse_initiate(document).err(),
        parse_complete(document).err(),
        parse_copy(document).err(),
        parse_delete(document).err(),
        parse_session(document).err(),
    ] {
        assert!(error.is_none_or(|error| !error.to_string().is_empty()));
    }
    if let Some(error) = parse_error(document) {
        assert!(!error.code.is_empty());
    }
}

/// A key can be told from what is sent, and nothing in what is sent ends a line or a path.
fn key(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut path = String::new();
    encode_key(text, &mut path);
    assert!(path.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~/%".contains(&b)));
    assert_eq!(decoded(&path), bytes);
    let proxies = Proxies::new("p".to_owned(), 1, None, "");
    let forwarding = Forwarding::new(proxies.to("h", 80).expect("nothing is excepted"), "h");
    let sent = forwarding.rewrite(format!("GET /{path} HTTP/1.1\r\nhost: h\r\n\r\n").as_bytes());
    assert_eq!(sent, format!("GET http://h/{path} HTTP/1.1\r\nhost: h\r\n\r\n").as_bytes());
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    let mut pairs = [("x", text), (name, value), ("list-type", "2")];
    let query = canonical_query(&mut pairs);
    let back: Vec<_> = query.split('&').filter_map(|pair| pair.split_once('=')).collect();
    assert!(back.len() == pairs.len() && back.is_sorted(), "{query}");
    for ((name, value), (sent_name, sent_value)) in pairs.iter().zip(back) {
        assert_eq!((decoded(sent_name), decoded(sent_value)), (name.as_bytes().to_vec(), value.as_bytes().to_vec()));
    }
}

fn decoded(text: &str) -> Vec<u8> {
    let mut pieces = text.split('%');
    let mut out = pieces.next().unwrap_or_default().as_bytes().to_vec();
    for piece in pieces {
        out.push(u8::from_str_radix(&piece[..2], 16).expect("two digits"));
        out.extend_from_slice(&piece.as_bytes()[2..]);
    }
    out
}
