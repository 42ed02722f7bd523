use quick_xml::events::Event;

use super::*;

/// A document as a flat text: names of elements, and the text directly inside each.
fn outline(scanner: &mut Scanner<'_>, name: &str, out: &mut String) -> Result<()> {
    out.push_str(&format!("<{name}"));
    while let Some(child) = scanner.child()? {
        outline(scanner, child, out)?;
    }
    out.push('>');
    Ok(())
}

fn ours(xml: &str) -> Result<String> {
    let mut scanner = Scanner::new(xml.as_bytes())?;
    let mut out = String::new();
    let name = scanner.root()?;
    outline(&mut scanner, name, &mut out)?;
    Ok(out)
}

fn our_text(xml: &str) -> Result<String> {
    let mut scanner = Scanner::new(xml.as_bytes())?;
    scanner.root()?;
    scanner.text().map(str::to_owned)
}

/// The outline, and the text that stands directly in the root, as quick-xml reads them.
fn theirs(xml: &str) -> Option<(String, String)> {
    let mut reader = quick_xml::Reader::from_str(xml);
    let (mut out, mut text, mut depth) = (String::new(), String::new(), 0);
    loop {
        match reader.read_event().ok()? {
            Event::Start(tag) => {
                out.push_str(&format!("<{}", tag.local_name().into_inner()));
                depth += 1;
            }
            Event::Empty(tag) => {
                out.push_str(&format!("<{}>", tag.local_name().into_inner()));
                if depth == 0 {
                    return Some((out, text));
                }
            }
            Event::End(_) => {
                out.push('>');
                depth -= 1;
                if depth == 0 {
                    return Some((out, text));
                }
            }
            Event::Text(piece) if depth == 1 => text.push_str(&piece),
            Event::CData(piece) if depth == 1 => text.push_str(&piece),
            Event::GeneralRef(reference) if depth == 1 => {
                text.push_str(&quick_xml::escape::unescape(&format!("&{};", &*reference)).ok()?);
            }
            Event::DocType(_) | Event::Eof => return None,
            _ => {}
        }
    }
}

#[test]
fn text_is_taken_as_it_is() {
    for (xml, expected) in [
        ("<a>x</a>", "x"),
        ("<a/>", ""),
        ("<a></a>", ""),
        ("<a> x y </a>", " x y "),
        ("<a b='>' c=\"/>\" >x</a >", "x"),
        ("<a>&lt;&gt;&amp;&quot;&apos;&#65;&#x1F600;&#x1;&#13;</a>", "<>&\"'A\u{1f600}\u{1}\r"),
        ("<a>x<!-- & > --><![CDATA[<&amp;]]><b>no</b><?pi >?>y</a>", "x<&amp;y"),
        ("<?xml version=\"1.0\"?>\n\n  <!-- c -->\n<a>x</a>", "x"),
        (" \r\n\t<?xml version=\"1.0\"?><a>x</a>", "x"),
        ("\u{feff}<a>x</a>", "x"),
        ("<s3:a xmlns:s3='u'>é</s3:a>", "é"),
    ] {
        assert_eq!(our_text(xml).as_deref(), Ok(expected), "{xml}");
    }
}

#[test]
fn what_is_not_well_formed_is_refused() {
    for xml in [
        "",
        "  ",
        "x",
        "<a>",
        "<a",
        "<a b='",
        "<a>x</b>",
        "<a>x</ab>",
        "<ab>x</a>",
        "<a>x</a",
        "</a>",
        "<>x</>",
        "<a>&nope;</a>",
        "<a>&</a>",
        "<a>&#xD800;</a>",
        "<a>&#x110000;</a>",
        "<a>&#99999999999;</a>",
        "<a>&#+5;</a>",
        "<a>&#;</a>",
        "<a>&#x;</a>",
        "<a><!-- </a>",
        "<a><![CDATA[ </a>",
        "<a><? </a>",
        "<!DOCTYPE a [<!ENTITY x 'y'>]><a>&x;</a>",
        "<!DOCTYPE html><html></html>",
        "<a><!ENTITY x 'y'></a>",
        "<a <b></b>",
    ] {
        assert!(our_text(xml).is_err(), "{xml}");
    }
    assert!(matches!(Scanner::new(b"<a>\xff</a>"), Err(XmlError::Malformed { at: 3, .. })));
}

#[test]
fn nesting_is_bounded() {
    let nested = |depth| "<a>".repeat(depth) + &"</a>".repeat(depth);
    assert!(ours(&nested(MAX_DEPTH)).is_ok());
    assert!(ours(&nested(MAX_DEPTH + 1)).is_err());
    assert!(ours(&nested(1_000_000)).is_err());
}

#[test]
fn skipping_leaves_the_parent_open() {
    let mut scanner = Scanner::new(b"<r><a><b>1</b><c/></a><d/><e>2</e></r>").unwrap();
    assert_eq!(scanner.root(), Ok("r"));
    for name in ["a", "d"] {
        assert_eq!(scanner.child(), Ok(Some(name)));
        scanner.skip().unwrap();
    }
    assert_eq!(scanner.child(), Ok(Some("e")));
    assert_eq!(scanner.text(), Ok("2"));
    assert_eq!(scanner.child(), Ok(None));
}

/// Random documents of well-formed pieces, some spoilt: where both readers accept, they must agree,
/// and what was not spoilt both must accept.
#[test]
fn agrees_with_quick_xml() {
    const PIECES: [&str; 14] = [
        "text",
        " ",
        "\n",
        "é",
        "&amp;",
        "&#x41;",
        "<!-- c -->",
        "<![CDATA[<x>&]]>",
        "<e/>",
        "<p:e a='1' b=\"<>\"/>",
        "<?pi x?>",
        "<n>",
        "<m xmlns=\"u\">",
        "&quot;",
    ];
    let mut random = crate::spoilt::Random::new(7);
    let mut accepted = 0;
    for _ in 0..20_000 {
        let mut xml = "<root>".to_owned();
        let mut open = vec!["root"];
        for _ in 0..random.below(12) {
            let piece = PIECES[random.below(PIECES.len())];
            xml.push_str(piece);
            if piece == "<n>" || piece.starts_with("<m") {
                open.push(&piece[1..2]);
            } else if open.len() > 1 && random.below(3) == 0 {
                xml.push_str(&format!("</{}>", open.pop().unwrap()));
            }
        }
        while let Some(name) = open.pop() {
            xml.push_str(&format!("</{name}>"));
        }
        let spoilt = random.below(3) == 0;
        if spoilt {
            let at = random.below(xml.len());
            if xml.is_char_boundary(at) && xml.is_char_boundary(at + 1) {
                xml.replace_range(at..=at, ["<", ">", "&", "/", "", "x", ";", "\""][random.below(8)]);
            }
        }
        let (ours, our_text, theirs) = (ours(&xml), our_text(&xml), theirs(&xml));
        match theirs {
            Some((outline, text)) if ours.is_ok() && our_text.is_ok() => {
                accepted += 1;
                assert_eq!(ours.unwrap(), outline, "{xml}");
                assert_eq!(our_text.unwrap(), text, "{xml}");
            }
            _ => assert!(spoilt, "{xml}: {ours:?} {our_text:?} {theirs:?}"),
        }
    }
    assert!(accepted > 13_000, "{accepted}");
}
