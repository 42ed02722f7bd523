//! S3's XML: a writer of elements and a reader into a small tree.
use crate::error::S3Error;
use quick_xml::Reader;
use quick_xml::events::Event;

/// Appends text so that any XML parser reads it back, control characters as references.
pub fn escape_into(out: &mut Vec<u8>, text: &[u8]) {
    let mut rest = text;
    loop {
        let plain = |b: &u8| *b >= 0x20 && *b != 0x7f && !matches!(b, b'&' | b'<' | b'>' | b'"');
        let run = rest.iter().position(|byte| !plain(byte)).unwrap_or(rest.len());
        out.extend_from_slice(&rest[..run]);
        let Some(byte) = rest.get(run) else { return };
        match byte {
            b'&' => out.extend_from_slice(b"&amp;"),
            b'<' => out.extend_from_slice(b"&lt;"),
            b'>' => out.extend_from_slice(b"&gt;"),
            b'"' => out.extend_from_slice(b"&quot;"),
            control => out.extend_from_slice(format!("&#x{control:x};").as_bytes()),
        }
        rest = &rest[run + 1..];
    }
}

/// Builds a document.
pub struct Writer {
    out: Vec<u8>,
}

impl Writer {
    pub fn new(capacity: usize) -> Self {
        let mut out = Vec::with_capacity(capacity);
        out.extend_from_slice(b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
        Self { out }
    }

    /// Opens the root, with S3's name space.
    pub fn root(&mut self, name: &str) {
        self.literal("<");
        self.literal(name);
        self.literal(" xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
    }

    pub fn open(&mut self, name: &str) {
        self.literal("<");
        self.literal(name);
        self.literal(">");
    }

    pub fn close(&mut self, name: &str) {
        self.literal("</");
        self.literal(name);
        self.literal(">");
    }

    pub fn text(&mut self, name: &str, value: &str) {
        self.open(name);
        self.escaped(value.as_bytes());
        self.close(name);
    }

    /// Elements, or text that needs no escaping.
    pub fn literal(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    pub fn escaped(&mut self, text: &[u8]) {
        escape_into(&mut self.out, text);
    }

    /// What was written so far, to append text that needs no escaping.
    pub fn raw(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    pub fn display(&mut self, name: &str, value: impl std::fmt::Display) {
        use std::io::Write;
        self.open(name);
        // Writing to memory cannot fail.
        let _ = write!(self.out, "{value}");
        self.close(name);
    }

    pub fn optional(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(name, value);
        }
    }

    pub fn finish(self) -> Vec<u8> {
        self.out
    }
}

/// An element without its attributes; name spaces are dropped from names.
#[derive(Debug, Default)]
pub struct Element {
    pub name: String,
    pub text: String,
    pub children: Vec<Element>,
}

impl Element {
    pub fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|c| c.name == name)
    }

    /// The text of a child, without white space around it.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.child(name).map(|c| c.text.trim())
    }

    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Self> {
        self.children.iter().filter(move |c| c.name == name)
    }
}

/// Reads a document; the root must have the expected name.
pub fn parse(document: &[u8], root: &str) -> Result<Element, S3Error> {
    let text = std::str::from_utf8(document).map_err(|_| S3Error::malformed_xml())?;
    let element = read(text).filter(|element| element.name == root);
    element.ok_or_else(S3Error::malformed_xml)
}

fn read(text: &str) -> Option<Element> {
    let mut reader = Reader::from_str(text);
    let mut stack: Vec<Element> = vec![Element::default()];
    let named = |name: &str| Element { name: name.to_owned(), ..Element::default() };
    loop {
        match reader.read_event().ok()? {
            Event::Start(start) => stack.push(named(start.local_name().as_ref())),
            Event::Empty(empty) => {
                let element = named(empty.local_name().as_ref());
                stack.last_mut()?.children.push(element);
            }
            Event::End(_) => {
                let element = stack.pop()?;
                stack.last_mut()?.children.push(element);
            }
            Event::Text(part) => stack.last_mut()?.text.push_str(&part),
            Event::CData(part) => stack.last_mut()?.text.push_str(&part),
            Event::GeneralRef(reference) => {
                let character = match reference.resolve_char_ref().ok()? {
                    Some(character) => character,
                    None => match &*reference {
                        "amp" => '&',
                        "lt" => '<',
                        "gt" => '>',
                        "quot" => '"',
                        "apos" => '\'',
                        _ => return None,
                    },
                };
                stack.last_mut()?.text.push(character);
            }
            Event::Eof => break,
            _ => {}
        }
    }
    let mut document = stack.pop().filter(|_| stack.is_empty())?;
    document.children.pop()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let odd = "a&b<c>\"d'\u{1}\t\n é\u{1F600} %2F+";
        let mut writer = Writer::new(0);
        writer.root("Delete");
        writer.open("Object");
        writer.text("Key", odd);
        writer.close("Object");
        writer.close("Delete");
        let root = parse(&writer.finish(), "Delete").unwrap();
        assert_eq!(root.all("Object").next().unwrap().child("Key").unwrap().text, odd);
    }

    #[test]
    fn broken_documents_are_refused() {
        for document in ["", "<Delete>", "<Other/>", "<Delete>&bad;</Delete>", "<Delete></Object>"] {
            assert!(parse(document.as_bytes(), "Delete").is_err(), "{document}");
        }
    }
}
