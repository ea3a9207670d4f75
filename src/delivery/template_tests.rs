//! What templates and formats make of members, through the renderer.

use super::page::{Kind, Page};
use super::*;
use crate::id::BatchPath;
use proptest::prelude::{any, prop_assert_eq, proptest};
use serde_json::{Map, Value, json};
use std::sync::Arc;

fn map(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => unreachable!("an object was written"),
    }
}

fn envelope() -> Envelope {
    Envelope {
        campaign: "winback".parse().unwrap(),
        run: "winback@20261122T140000Z".parse().unwrap(),
        fire_time: "2026-11-22T14:00:00Z".parse().unwrap(),
        channel: "e m\u{e4}il".to_owned(),
        batches: 2,
        attributes: map(json!({"offer": "Gr\u{fc}\u{df}e \u{1f98a}"})),
    }
}

fn shape(payload: Value, format: Format) -> Shape {
    Shape {
        payload: serde_json::from_value(payload).unwrap(),
        format,
        vars: map(json!({"shop": "north", "n": 3})),
    }
}

/// One member, its columns named `a`, `b` and so on.
fn page(cells: &[(Kind, &str)]) -> Page {
    let names = ('a'..='z').map(String::from).take(cells.len());
    let mut page = Page::new(names.collect::<Arc<[String]>>());
    for (kind, text) in cells {
        page.push(*kind, text);
    }
    page
}

fn rendered(payload: Value, format: Format, page: &Page) -> Result<String, RenderError> {
    let renderer = Renderer::of(&envelope(), shape(payload, format));
    let body = renderer.render(&BatchPath::whole(2), page, 0..page.len())?;
    Ok(String::from_utf8(body.to_vec()).unwrap())
}

/// What `template` gives for one member.
fn value(template: &str, cells: &[(Kind, &str)]) -> Result<String, RenderError> {
    let text = rendered(json!({"body": {"v": template}}), Format::Json, &page(cells))?;
    serde_json::from_str::<Value>(&text).unwrap();
    let inner = text.strip_prefix("{\"v\":").unwrap();
    Ok(inner.strip_suffix('}').unwrap().to_owned())
}

#[test]
fn no_digit_within_json_is_lost() {
    let text = r#"{"id":9007199254740993,"big":123456789012345678901234567890,"fine":0.12345678901234567,"far":1.25e-400,"p":12.5,"list":[1,{"x":0.10}]}"#;
    let cells = [(Kind::Json, text)];
    for (template, expect) in [
        ("{{ a }}", text),
        ("{{ a | default('') }}", text),
        ("{{ a.id }}", "\"9007199254740993\""),
        ("{{ a.id + 1 }}", "\"9007199254740994\""),
        ("{{ a.big }}", "\"123456789012345678901234567890\""),
        ("{{ a.fine }}", "0.12345678901234567"),
        ("{{ a.far }}", "1.25e-400"),
        ("{{ a.p + 1 }}", "13.5"),
        ("{{ a.list }}", r#"[1,{"x":0.10}]"#),
        (
            "{{ [a.list[1], a.fine] }}",
            r#"[{"x":0.10},0.12345678901234567]"#,
        ),
        ("{{ a.list | last }}", r#"{"x":0.10}"#),
        ("{{ a.list | length }}", "2"),
        ("{{ a['list'][-1].x }}", "0.1"),
        (
            "n {{ a.fine }} {{ a.list }}",
            r#""n 0.12345678901234567 [1,{\"x\":0.10}]""#,
        ),
        (
            "{{ {'f': a.fine} | tojson }}",
            r#""{\"f\":0.12345678901234567}""#,
        ),
        (
            "{% for k in a.list %}{{ k }};{% endfor %}",
            r#""1;{\"x\":0.10};""#,
        ),
        ("{{ 'list' in a }}", "true"),
    ] {
        assert_eq!(value(template, &cells).unwrap(), expect, "{template}");
    }
}

#[test]
fn json_as_deep_as_it_likes_is_there() {
    let deep = format!("{}7{}", "[".repeat(5_000), "]".repeat(5_000));
    let page = page(&[(Kind::Json, &deep)]);
    for (template, expect) in [
        ("{{ a | default('none') }}", deep.as_str()),
        ("{{ a[0] }}", &deep[1..deep.len() - 1]),
    ] {
        let body = rendered(json!({"body": {"v": template}}), Format::Json, &page).unwrap();
        assert_eq!(body, format!("{{\"v\":{expect}}}"));
    }
}

#[track_caller]
fn check(template: &str, cells: &[(Kind, &str)], expect: &str) {
    assert_eq!(value(template, cells).unwrap(), expect, "{template}");
}

#[test]
fn one_expression_keeps_its_type_and_every_digit() {
    check("{{ a }}", &[(Kind::Integer, "7")], "7");
    check("{{ a }}", &[(Kind::Decimal, "12.50")], "12.50");
    check("{{ A }}", &[(Kind::Decimal, "12.50")], "12.50");
    check("{{ a | default(0) }}", &[(Kind::Decimal, "12.50")], "12.50");
    check("{{ a | default(0) }}", &[(Kind::Null, "")], "0");
    check("{{- a -}}", &[(Kind::Bool, "t")], "true");
    let big = "9223372036854775807";
    check(
        "{{ a }}",
        &[(Kind::Integer, big)],
        "\"9223372036854775807\"",
    );
    check(
        "{{ a | default(1) }}",
        &[(Kind::Integer, big)],
        "\"9223372036854775807\"",
    );
    check("{{ a | default(1) }}", &[(Kind::Integer, "-7")], "-7");
    check("{{ a | default(1) }}", &[(Kind::Float, "3.0")], "3");
    check(
        "{{ a }}",
        &[(Kind::Json, "{\"x\": [1, 2.50]}")],
        "{\"x\": [1, 2.50]}",
    );
    check("{{ a.x[0] }}", &[(Kind::Json, "{\"x\": [1, 2.5]}")], "1");
    check("{{ a }}", &[(Kind::Float, "NaN")], "null");
    check("{{ a | default(0) }}", &[(Kind::Float, "NaN")], "0");
    check(
        "{{ days_ago(1) }}",
        &[(Kind::Null, "")],
        "\"2026-11-21 14:00:00\"",
    );
    check("{{ var('n') }}", &[(Kind::Null, "")], "3");
    check("{{ batch }}", &[(Kind::Null, "")], "2");
}

#[test]
fn text_around_an_expression_makes_it_text() {
    check("n{{ a }}", &[(Kind::Decimal, "12.50")], "\"n12.50\"");
    check("{{ a }}{{ a }}", &[(Kind::Integer, "7")], "\"77\"");
    check(
        "{{ a }}\u{1f98a}\"",
        &[(Kind::Text, "\\\n")],
        "\"\\\\\\n\u{1f98a}\\\"\"",
    );
    check("{{ a }}", &[(Kind::Text, "{{ b }}")], "\"{{ b }}\"");
    check("x{{ a }}", &[(Kind::Text, "<&>{{ b }}")], "\"x<&>{{ b }}\"");
    check(
        "{% if a == 'x' %}1{% else %}2{% endif %}",
        &[(Kind::Text, "x")],
        "\"1\"",
    );
    check(
        "at {{ a }}",
        &[(Kind::Timestamp, "2026-01-02 03:04:05")],
        "\"at 2026-01-02T03:04:05Z\"",
    );
    check(
        "{{ var('shop') }}/{{ date }}",
        &[(Kind::Null, "")],
        "\"north/2026-11-22\"",
    );
    check("plain", &[(Kind::Null, "")], "\"plain\"");
    check("{{ (a | float) > 5 }}", &[(Kind::Decimal, "12.50")], "true");
}

#[test]
fn null_is_an_error_that_names_the_template_and_no_value() {
    for template in [
        "{{ a }}",
        "x{{ a }}",
        "{{ a | upper }}",
        "{% if a %}{% endif %}",
    ] {
        let error = value(template, &[(Kind::Null, "")]).unwrap_err();
        assert_eq!(error.key, "activation.payload.body.v", "{template}");
        assert!(error.reason.contains("`default`"), "{template}: {error}");
    }
    for template in ["{{ a | round }}", "{{ a + 1 }}", "{{ a / 99999999999 }}"] {
        let error = value(template, &[(Kind::Text, "canary")]).unwrap_err();
        assert!(!error.to_string().contains("canary"), "{error}");
    }
}

#[test]
fn a_column_goes_before_a_name_of_the_run_even_where_it_is_null() {
    let mut named = Page::new(Arc::from(["channel".to_owned(), "batch".to_owned()]));
    named.push(Kind::Null, "");
    named.push(Kind::Text, "own");
    let payload = json!({"body": {"v": "{{ channel | default('none') }}", "b": "{{ batch }}!"}});
    let text = rendered(payload, Format::Json, &named).unwrap();
    assert_eq!(text, r#"{"v":"none","b":"own!"}"#);
}

#[test]
fn a_template_cannot_take_for_ever_or_give_without_end() {
    let long = "x".repeat(1 << 20);
    let cells = [(Kind::Text, long.as_str())];
    let loops =
        "{% for i in a %}{% for j in a %}{% for k in a %}{% endfor %}{% endfor %}{% endfor %}";
    let gives = "{% for i in a %}{{ a }}{% endfor %}";
    for template in [loops, gives, "{{ a | replace('x', a) }}"] {
        let error = value(template, &cells).unwrap_err();
        assert!(error.reason.contains("too"), "{error}");
    }
    let whole = value("{{ a }}", &cells).unwrap();
    assert_eq!(whole.len(), long.len() + 2);
    for template in ["{{ (a | split) * 90000000 }}", "x{{ [a] * 90000000 }}"] {
        let error = value(template, &cells).unwrap_err();
        assert!(error.reason.contains("no bound"), "{error}");
    }
    assert!(value("{{ [a] | tojson(indent=2000000000) }}", &cells).is_err());
}

#[test]
fn the_envelope_holds_the_members_as_the_templates_say() {
    let payload = json!({
        "member": {"id": "{{ a }}", "deep": {"list": ["{{ b }}", 1, null]}},
        "attributes": {"text": "batch {{ batch }} of {{ campaign }}"},
    });
    let page = page(&[(Kind::Text, "p-1"), (Kind::Decimal, "1.10")]);
    let body = rendered(payload, Format::Json, &page).unwrap();
    let usual = Renderer::new(&envelope());
    let usual = usual.render(&BatchPath::whole(2), &page, 0..1).unwrap();
    let usual = String::from_utf8(usual.to_vec()).unwrap();
    let expect = usual
        .replace(
            "{\"offer\":\"Gr\u{fc}\u{df}e \u{1f98a}\"}",
            r#"{"text":"batch 2 of winback"}"#,
        )
        .replace(
            r#"{"a":"p-1","b":1.10}"#,
            r#"{"id":"p-1","deep":{"list":[1.10,1,null]}}"#,
        );
    assert_eq!(body, expect);
}

#[test]
fn ndjson_is_one_member_a_line_and_the_envelope_in_headers() {
    let mut two = page(&[(Kind::Text, "p\n1")]);
    two.push(Kind::Text, "p-2");
    let body = rendered(json!({}), Format::Ndjson, &two).unwrap();
    assert_eq!(body, "{\"a\":\"p\\n1\"}\n{\"a\":\"p-2\"}\n");
    let payload = json!({"member": {"id": "{{ a }}"}});
    let body = rendered(payload, Format::Ndjson, &two).unwrap();
    assert_eq!(body, "{\"id\":\"p\\n1\"}\n{\"id\":\"p-2\"}\n");

    let renderer = Renderer::of(&envelope(), shape(json!({}), Format::Ndjson));
    assert_eq!(renderer.content_type(), "application/x-ndjson");
    let headers = renderer.headers(&"2.01".parse().unwrap()).unwrap();
    let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
    assert_eq!(
        headers,
        [
            ("campaignd-campaign", "winback"),
            ("campaignd-run-id", "winback@20261122T140000Z"),
            ("campaignd-fire-time", "2026-11-22T14:00:00Z"),
            ("campaignd-channel", "e%20m%C3%A4il"),
            ("campaignd-batch", "2"),
            ("campaignd-part", "01"),
            ("campaignd-batches", "2"),
            (
                "campaignd-attributes",
                "{\"offer\":\"Gr\\u00fc\\u00dfe \\ud83e\\udd8a\"}"
            ),
        ]
    );
}

#[test]
fn a_form_holds_one_member() {
    let one = page(&[
        (Kind::Text, "p 1"),
        (Kind::Decimal, "1.10"),
        (Kind::Null, ""),
    ]);
    let body = rendered(json!({}), Format::Form, &one).unwrap();
    assert_eq!(body, "a=p+1&b=1.10&c=");
    let payload = json!({"member": {"to": "{{ a }}", "x": "{{ c | default('-') }}"}});
    let body = rendered(payload, Format::Form, &one).unwrap();
    assert_eq!(body, "to=p+1&x=-");
    let mut two = page(&[(Kind::Text, "p-1")]);
    two.push(Kind::Text, "p-2");
    let error = rendered(json!({}), Format::Form, &two).unwrap_err();
    assert!(error.reason.contains("batch_size: 1"), "{error}");
}

proptest! {
    #[test]
    fn every_text_reads_back_whatever_is_around_it(text in any::<String>()) {
        let cells = [(Kind::Text, text.as_str())];
        for (template, expect) in [
            ("{{ a }}", text.clone()),
            ("{{ a | default('') }}", text.clone()),
            ("<{{ a }}>", format!("<{text}>")),
        ] {
            let json = value(template, &cells).unwrap();
            prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), expect);
        }
    }

    #[test]
    fn a_body_is_json_whatever_the_cells_are(
        cells in proptest::collection::vec("[-+0-9.eE:TZ nN\u{e9}\"\\\\{}\u{0}\n]{0,20}", 3)
    ) {
        for kind in [Kind::Bool, Kind::Integer, Kind::Decimal, Kind::Float, Kind::Timestamp,
            Kind::TimestampTz, Kind::Json, Kind::Text]
        {
            let cells: Vec<(Kind, &str)> = cells.iter().map(|c| (kind, c.as_str())).collect();
            let payload = json!({"member": {
                "a": "{{ a }}", "b": "{{ b | default(1) }}", "c": "<{{ c }}>",
            }});
            for payload in [json!({}), payload] {
                let body = rendered(payload, Format::Json, &page(&cells)).unwrap();
                serde_json::from_str::<Value>(&body).unwrap();
            }
        }
    }

    #[test]
    fn an_integer_is_the_same_number_with_and_without_a_filter(number in any::<i64>()) {
        let text = number.to_string();
        let cells = [(Kind::Integer, text.as_str())];
        let bare = value("{{ a }}", &cells).unwrap();
        prop_assert_eq!(&bare, &value("{{ a | default(1) }}", &cells).unwrap());
        prop_assert_eq!(bare.trim_matches('"'), text);
    }
}
