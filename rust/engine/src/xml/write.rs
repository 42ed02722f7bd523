//! The documents that are sent: which parts make an object, and which keys are to go.

use super::XmlError;

const NAMESPACE: &str = "http://s3.amazonaws.com/doc/2006-03-01/";

/// One part of a multipart upload, as CompleteMultipartUpload names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part<'a> {
    /// From 1 to 10,000.
    pub number: u32,
    /// As UploadPart's answer had it, quotes included.
    pub etag: &'a str,
    /// Name of the element ([`crate::checksum::Algorithm::xml_element`]) and value in base64.
    pub checksum: Option<(&'a str, &'a str)>,
}

/// The body of CompleteMultipartUpload. The parts must be in ascending order already.
///
/// # Errors
/// [`XmlError::Inexpressible`] if an ETag has a character that no ETag has.
pub fn write_complete(parts: &[Part<'_>]) -> Result<Vec<u8>, XmlError> {
    let mut out = String::with_capacity(128 + parts.len() * 160);
    out.push_str("<CompleteMultipartUpload xmlns=\"");
    out.push_str(NAMESPACE);
    out.push_str("\">");
    for part in parts {
        out.push_str("<Part><ETag>");
        escape(part.etag, &mut out)?;
        out.push_str("</ETag>");
        if let Some((element, value)) = part.checksum {
            out.push_str(&format!("<{element}>"));
            escape(value, &mut out)?;
            out.push_str(&format!("</{element}>"));
        }
        out.push_str(&format!("<PartNumber>{}</PartNumber></Part>", part.number));
    }
    out.push_str("</CompleteMultipartUpload>");
    Ok(out.into_bytes())
}

/// The body of DeleteObjects; `quiet` asks for an answer that names only what was not deleted.
///
/// # Errors
/// [`XmlError::Inexpressible`] names the first key that has a character which XML 1.0 cannot express:
/// control characters but tab, line feed and carriage return, U+FFFE and U+FFFF.
pub fn write_delete(keys: &[&str], quiet: bool) -> Result<Vec<u8>, XmlError> {
    let mut out = String::with_capacity(128 + keys.iter().map(|key| key.len() + 32).sum::<usize>());
    out.push_str("<Delete xmlns=\"");
    out.push_str(NAMESPACE);
    out.push_str("\">");
    for key in keys {
        out.push_str("<Object><Key>");
        escape(key, &mut out)?;
        out.push_str("</Key></Object>");
    }
    if quiet {
        out.push_str("<Quiet>true</Quiet>");
    }
    out.push_str("</Delete>");
    Ok(out.into_bytes())
}

/// Appends text such that a reader gets back exactly it. Line ends and tabs become references: a
/// reader would turn a bare carriage return into a line feed.
fn escape(text: &str, out: &mut String) -> Result<(), XmlError> {
    let mut rest = text;
    while let Some(at) =
        rest.find(|character: char| matches!(character, '&' | '<' | '>' | '\0'..='\x1f' | '\u{fffe}' | '\u{ffff}'))
    {
        out.push_str(&rest[..at]);
        let mut tail = rest[at..].chars();
        out.push_str(match tail.next() {
            Some('&') => "&amp;",
            Some('<') => "&lt;",
            Some('>') => "&gt;",
            Some('\t') => "&#x9;",
            Some('\n') => "&#xA;",
            Some('\r') => "&#xD;",
            _ => return Err(XmlError::Inexpressible { key: text.to_owned() }),
        });
        rest = tail.as_str();
    }
    out.push_str(rest);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_completion() {
        let parts = [
            Part { number: 1, etag: "\"a54357aff0632cce46d942af68356b38\"", checksum: None },
            Part { number: 10_000, etag: "x", checksum: Some(("ChecksumCRC64NVME", "rosUhgp5mIg=")) },
        ];
        let expected = "<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
            <Part><ETag>\"a54357aff0632cce46d942af68356b38\"</ETag><PartNumber>1</PartNumber></Part>\
            <Part><ETag>x</ETag><ChecksumCRC64NVME>rosUhgp5mIg=</ChecksumCRC64NVME><PartNumber>10000</PartNumber></Part>\
            </CompleteMultipartUpload>";
        assert_eq!(String::from_utf8(write_complete(&parts).unwrap()).unwrap(), expected);
    }

    #[test]
    fn deletions_are_read_back_as_they_were_meant() {
        let keys = ["a/b", " <&>\"' ", "line\r\nend\t", "]]>", "&amp;", "é\u{1f600}\u{7f}\u{85}\u{2028}"];
        let xml = String::from_utf8(write_delete(&keys, true).unwrap()).unwrap();
        assert!(xml.ends_with("<Quiet>true</Quiet></Delete>"));
        // Read by another implementation, line ends normalised as XML demands.
        let mut reader = quick_xml::Reader::from_str(&xml);
        let (mut read, mut key) = (Vec::new(), String::new());
        loop {
            use quick_xml::events::Event;
            match reader.read_event().unwrap() {
                Event::Start(tag) if tag.local_name().into_inner() == "Key" => key.clear(),
                Event::Text(text) => key.push_str(&text.xml10_content()),
                Event::GeneralRef(reference) => {
                    key.push_str(&quick_xml::escape::unescape(&format!("&{};", &*reference)).unwrap());
                }
                Event::End(tag) if tag.local_name().into_inner() == "Key" => read.push(key.clone()),
                Event::Eof => break,
                _ => {}
            }
        }
        assert_eq!(read, keys);
        assert!(!String::from_utf8(write_delete(&keys, false).unwrap()).unwrap().contains("Quiet"));
    }

    #[test]
    fn what_xml_cannot_say_is_refused_by_name() {
        for key in ["a\0", "\u{1}", "x\u{1f}y", "\u{fffe}", "\u{ffff}"] {
            assert_eq!(write_delete(&["ok", key], true), Err(XmlError::Inexpressible { key: key.into() }));
        }
        let message = write_delete(&["k\u{1}"], true).unwrap_err().to_string();
        assert!(message.contains("\"k\\u{1}\""), "{message}");
    }
}
