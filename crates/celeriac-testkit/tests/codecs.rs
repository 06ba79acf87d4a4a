//! What we write is what kombu reads, in every serializer and compression, and the other way round.

use celeriac_testkit::celery_or_skip;
use celeriac_wire::codec::{self, Accept, Compression, Serializer};
use celeriac_wire::{Body, Envelope, Map, Message, Special, Value};
use std::fmt::Write as _;

/// Reads envelopes, one a line; prints what kombu decodes, and the same encoded by kombu.
const SCRIPT: &str = "
import base64, datetime, json, sys
from kombu import compression, serialization
for line in open('envelopes'):
    envelope = json.loads(line)
    body = base64.b64decode(envelope['body'])
    header = envelope['headers'].get('compression')
    if header:
        body = compression.decompress(body, header)
    kind, encoding = envelope['content-type'], envelope['content-encoding']
    value = serialization.loads(body, kind, encoding, accept=[kind])
    kind, encoding, again = serialization.dumps(value, {
        'application/json': 'json', 'application/x-msgpack': 'msgpack', 'application/x-yaml': 'yaml',
    }[kind])
    if isinstance(again, str):
        again = again.encode()
    if header:
        again, header = compression.compress(again, header)
    envelope['body'] = base64.b64encode(again).decode()
    def plain(value):
        if isinstance(value, (bytes, datetime.datetime, datetime.date)):
            return repr(value)
        return value
    print(json.dumps([json.dumps(value, default=plain, sort_keys=True), json.dumps(envelope)]))
";

fn special(special: &Special) -> Value {
    special.to_value()
}

fn body() -> Body {
    let texts =
        ["", "é\u{1f600}\u{7f}\u{85}\u{2028}\"\\\n\t", "yes", "1e3", "2026-01-02", "~", "- a: b"];
    let mut args: Vec<Value> = texts.into_iter().map(Value::from).collect();
    args.extend([0, 127, 128, 255, 256, 65535, 65536, i64::MAX].map(Value::from));
    args.extend(
        [-1, -32, -33, -128, -129, -32769, i64::from(i32::MIN) - 1, i64::MIN].map(Value::from),
    );
    args.extend([0.1, -0.0, 1e300, 1e-300, 1e16, 5e-324, f64::INFINITY, f64::NAN].map(Value::from));
    args.extend([Value::from(u64::MAX), Value::Null, Value::from(true), Value::from(false)]);
    args.push(Value::from((0..40).collect::<Vec<_>>()));
    args.push(special(&Special::Bytes(vec![255; 300])));
    args.push(special(&Special::Bytes(b"ascii".to_vec())));
    let long = "k".repeat(2000);
    let mut kwargs = Map::from([("a: b", Value::from("x".repeat(70_000))), ("{", Value::Null)]);
    kwargs.insert(long, Value::from(Map::from([("", Value::from("nested"))])));
    Body::new(args, kwargs)
}

#[tokio::test]
async fn kombu_reads_what_we_write_and_we_read_what_kombu_writes() {
    // interop: messages.json messages.msgpack messages.yaml messages.types
    // interop: messages.zlib messages.bzip2 messages.lzma messages.brotli messages.zstd
    let python = celery_or_skip!();
    let app = python.app("", &[]);
    let mut envelopes = String::new();
    let mut cases = Vec::new();
    for serializer in Serializer::ALL {
        for compression in Compression::ALL.into_iter().map(Some).chain([None]) {
            let mut body = body();
            if serializer == Serializer::Yaml {
                body.args.push(special(&Special::Date("2026-01-02".to_owned())));
                body.args.push(special(&Special::DateTime(
                    "2026-01-02T03:04:05.000006+02:00".to_owned(),
                )));
            }
            let mut message = Message::new("t", "i", "");
            codec::write(&mut message, &body, serializer, compression).unwrap();
            let text = String::from_utf8(Envelope::new(message).to_bytes()).unwrap();
            writeln!(envelopes, "{text}").unwrap();
            cases.push((serializer, compression, body));
        }
    }
    std::fs::write(app.folder().join("envelopes"), envelopes).unwrap();
    let said = app.script(SCRIPT).await;
    assert_eq!(said.lines().count(), cases.len());
    let mut seen: Option<String> = None;
    for (line, (serializer, compression, body)) in said.lines().zip(cases) {
        let parts = Value::parse(line.as_bytes()).unwrap();
        let [value, envelope] = parts.as_array().unwrap() else { panic!("{line}") };
        let message = Envelope::parse(envelope.as_str().unwrap().as_bytes()).unwrap().message;
        let read = codec::read(&message, Accept::default()).unwrap();
        assert_eq!(read.body, body, "{serializer:?} {compression:?}");
        // Python sees the same values whatever they came in.
        if serializer != Serializer::Yaml {
            let value = value.as_str().unwrap().to_owned();
            assert_eq!(seen.get_or_insert_with(|| value.clone()), &value, "{serializer:?}");
        }
    }
}
