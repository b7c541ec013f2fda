//! docs/api.md and the server say the same.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, DeserializeOwned, Deserializer, Visitor};
use serde::{Serialize, forward_to_deserialize_any};
use serde_json::{Map, Value, json};

use super::super::error::Code;
use super::super::objects::*;
use super::super::routes;

const TEXT: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/api.md"));

/// Returns the cells of the table rows in a text, without the heading.
fn rows(text: &str) -> Vec<Vec<String>> {
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    let cells = |line: &str| {
        let cells = line.trim_matches('|').split('|');
        cells.map(|cell| cell.trim().to_owned()).collect()
    };
    rows.map(cells).collect()
}

/// Returns the text below a heading, up to the next one.
fn section(heading: &str) -> &'static str {
    let start = format!("\n{heading}\n");
    let (_, rest) = TEXT
        .split_once(&start)
        .unwrap_or_else(|| panic!("docs/api.md has no {heading:?}"));
    rest.split("\n## ")
        .next()
        .unwrap()
        .split("\n### ")
        .next()
        .unwrap()
}

/// The documented fields of an object: name, type, meaning.
fn fields(object: &str) -> Vec<(String, String, String)> {
    let rows = rows(section(&format!("### {object}")));
    let field = |cells: Vec<String>| {
        let name = cells[0].trim_matches('`').to_owned();
        (name, cells[1].clone(), cells[2].clone())
    };
    rows.into_iter().map(field).collect()
}

/// Returns a value of a documented type.
fn sample(kind: &str, meaning: &str, with_optional: bool) -> Value {
    let kind = kind.trim_end_matches('?');
    if let Some(item) = kind.strip_suffix("[]") {
        return Value::Array(vec![sample(item, meaning, with_optional)]);
    }
    if let Some((name, _)) = kind.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return object(name, with_optional);
    }
    match kind {
        "number" | "time" => json!(1),
        "boolean" => json!(true),
        "node" | "content" | "download ID" => json!("a"),
        "string" => match meaning
            .strip_prefix('`')
            .and_then(|rest| rest.split_once('`'))
        {
            // The first value of a list of values.
            Some((value, _)) => json!(value),
            None => json!("a"),
        },
        other => panic!("docs/api.md has the unknown type {other:?}"),
    }
}

fn object(name: &str, with_optional: bool) -> Value {
    let fields = fields(name).into_iter();
    let fields = fields.filter(|(_, kind, _)| with_optional || !kind.ends_with('?'));
    let value = fields.map(|(name, kind, meaning)| {
        let value = sample(&kind, &meaning, with_optional);
        (name, value)
    });
    Value::Object(value.collect::<Map<_, _>>())
}

/// Learns which fields a type has.
struct Fields<'a>(&'a mut &'static [&'static str]);

#[derive(Debug)]
struct Learnt;

impl fmt::Display for Learnt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the fields are known")
    }
}

impl std::error::Error for Learnt {}

impl de::Error for Learnt {
    fn custom<T: fmt::Display>(_: T) -> Learnt {
        Learnt
    }
}

impl<'de> Deserializer<'de> for Fields<'_> {
    type Error = Learnt;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Learnt> {
        Err(Learnt)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Learnt> {
        *self.0 = fields;
        Err(Learnt)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// Makes all numbers of one kind, for a comparison.
fn plain(value: Value) -> Value {
    match value {
        Value::Number(number) => json!(number.as_f64()),
        Value::Array(values) => values.into_iter().map(plain).collect(),
        Value::Object(fields) => {
            let fields = fields.into_iter().map(|(name, value)| (name, plain(value)));
            Value::Object(fields.collect())
        }
        other => other,
    }
}

/// Checks that a type has exactly the documented fields, of the documented types, and that exactly
/// those with `?` may be absent.
fn check<T: Serialize + DeserializeOwned>(checked: &mut Vec<&'static str>, name: &'static str) {
    let documented = fields(name);
    let documented: Vec<&str> = documented.iter().map(|(name, ..)| name.as_str()).collect();
    let mut known: &[&str] = &[];
    let _ = T::deserialize(Fields(&mut known));
    assert_eq!(known, documented, "fields of {name}");
    for with_optional in [true, false] {
        let written = object(name, with_optional);
        let read: T = serde_json::from_value(written.clone())
            .unwrap_or_else(|error| panic!("{name} {written}: {error}"));
        let again = serde_json::to_value(&read).unwrap();
        assert_eq!(plain(again), plain(written), "{name}");
    }
    checked.push(name);
}

#[test]
fn every_object_has_the_documented_fields() {
    let mut checked = Vec::new();
    let all = &mut checked;
    check::<Status>(all, "Status");
    check::<Tracker>(all, "Tracker");
    check::<PortMapping>(all, "PortMapping");
    check::<DownloadCounts>(all, "DownloadCounts");
    check::<Rates>(all, "Rates");
    check::<Peers>(all, "Peers");
    check::<Peer>(all, "Peer");
    check::<Downloads>(all, "Downloads");
    check::<Download>(all, "Download");
    check::<Why>(all, "Why");
    check::<DownloadDetail>(all, "DownloadDetail");
    check::<Source>(all, "Source");
    check::<ChunkMap>(all, "ChunkMap");
    check::<Add>(all, "Add");
    check::<Added>(all, "Added");
    check::<Which>(all, "Which");
    check::<Remove>(all, "Remove");
    check::<Changed>(all, "Changed");
    check::<DownloadChange>(all, "DownloadChange");
    check::<Shares>(all, "Shares");
    check::<Share>(all, "Share");
    check::<NewShare>(all, "NewShare");
    check::<LinkOf>(all, "LinkOf");
    check::<Uploaded>(all, "Uploaded");
    check::<Text>(all, "Text");
    check::<Search>(all, "Search");
    check::<Found>(all, "Found");
    check::<FoundFile>(all, "FoundFile");
    check::<Capabilities>(all, "Capabilities");
    check::<Capability>(all, "Capability");
    check::<NewCapability>(all, "NewCapability");
    check::<Limits>(all, "Limits");
    check::<LimitsChange>(all, "LimitsChange");
    check::<DownloadsChange>(all, "DownloadsChange");
    check::<SharesChange>(all, "SharesChange");
    check::<ShareEvent>(all, "ShareEvent");
    check::<RatePoint>(all, "RatePoint");
    check::<Notice>(all, "Notice");
    let headings = TEXT.lines().filter_map(|line| line.strip_prefix("### "));
    let mut documented: Vec<&str> = headings.collect();
    documented.sort_unstable();
    checked.sort_unstable();
    assert_eq!(checked, documented);
}

#[test]
fn every_route_is_documented_and_every_documented_route_exists() {
    let rows = rows(section("## Routes"));
    let mut documented: Vec<String> = rows
        .iter()
        .map(|cells| cells[0].trim_matches('`').to_owned())
        .collect();
    let mut served: Vec<String> = routes::table()
        .into_iter()
        .map(|(method, path, _)| format!("{method} {path}"))
        .collect();
    documented.sort();
    served.sort();
    assert_eq!(served, documented);
}

#[test]
fn every_error_code_is_documented_with_its_status() {
    let codes: BTreeMap<String, String> = rows(section("## Errors"))
        .into_iter()
        .map(|cells| (cells[0].trim_matches('`').to_owned(), cells[1].clone()))
        .filter(|(code, _)| !code.starts_with("error."))
        .collect();
    let known = Code::ALL.map(Code::parts);
    let known = known.map(|(code, status)| (code.to_owned(), status.as_u16().to_string()));
    assert_eq!(codes, BTreeMap::from(known));
}

#[test]
fn every_event_is_documented() {
    let documented = rows(section("## Events")).into_iter();
    let mut documented: Vec<String> = documented
        .map(|cells| cells[0].trim_matches('`').to_owned())
        .collect();
    // Every event is sent by one of these calls.
    let source = include_str!("../events.rs");
    let sent = ["self.send(\"", "event(\""];
    let mut sent: Vec<String> = sent
        .iter()
        .flat_map(|call| source.split(call).skip(1))
        .filter_map(|rest| Some(rest.split_once('"')?.0.to_owned()))
        .collect();
    documented.sort();
    sent.sort();
    assert_eq!(sent, documented);
}
