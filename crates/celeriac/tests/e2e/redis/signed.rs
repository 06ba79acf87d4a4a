//! Celery's serializer `auth`, both ways: a Python app with `setup_security` and ours trust each other's
//! keys.

use super::app;
use crate::kit::{ALL, PATIENCE, until};
use crate::running::{add, start};
use celeriac::prelude::*;
use celeriac::seal::CeleryAuth;
use celeriac_core::dead::DeadReason;
use celeriac_core::store::DeadFilter;
use celeriac_testkit::redis_or_skip;
use celeriac_testkit::services::python::Python;

const KEYS: &str = "
import datetime, os
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

def make(name, serial, days, folder='certs', size=2048):
    key = rsa.generate_private_key(public_exponent=65537, key_size=size)
    issuer = x509.Name([
        x509.NameAttribute(x509.NameOID.COUNTRY_NAME, 'DE'),
        x509.NameAttribute(x509.NameOID.COMMON_NAME, name),
    ])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (x509.CertificateBuilder().subject_name(issuer).issuer_name(issuer)
        .public_key(key.public_key()).serial_number(serial)
        .not_valid_before(now - datetime.timedelta(days=9))
        .not_valid_after(now + datetime.timedelta(days=days)).sign(key, hashes.SHA256()))
    os.makedirs(folder, exist_ok=True)
    kind = serialization.PrivateFormat.PKCS8 if serial % 2 else serialization.PrivateFormat.TraditionalOpenSSL
    with open(f'{name}.key', 'wb') as file:
        file.write(key.private_bytes(serialization.Encoding.PEM, kind, serialization.NoEncryption()))
    with open(f'{folder}/{name}.pem', 'wb') as file:
        file.write(certificate.public_bytes(serialization.Encoding.PEM))

make('python', 2**130 + 1, 9)
make('rust', 12, 9)
make('stranger', 3, 9, 'others')
make('old', 5, -1, 'expired')
";

const APP: &str = "
import os
from celery import Celery
app = Celery('proj', broker=os.environ['URL'], backend=os.environ['URL'])
who, certs = os.environ.get('WHO', 'python'), os.environ.get('CERTS', 'certs')
if os.path.exists(f'{certs}/{who}.pem'):
    app.conf.update(
        task_serializer='auth', accept_content=['auth'], result_accept_content=['json'],
        security_key=f'{who}.key', security_certificate=f'{certs}/{who}.pem',
        security_cert_store=f'{certs}/*.pem')
    app.setup_security()
    app.conf.result_serializer = app.conf.event_serializer = 'json'
@app.task(name='py.double')
def double(x): return 2 * x
@app.task(name='t.add')
def add(x, y): raise NotImplementedError
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signed_messages_go_both_ways() {
    let redis = redis_or_skip!();
    let Some(python) = Python::with_libraries("5.7") else { return };
    let proj = python.app(APP, &[("URL", &redis.url())]);
    proj.script(KEYS).await;
    let at = |path: &str| proj.folder().join(path);
    let auth = || {
        let trusting = CeleryAuth::trusting(at("certs/*.pem")).unwrap();
        trusting.signing_as(at("rust.key"), at("certs/rust.pem")).unwrap()
    };
    let ours = app(&redis).tasks(tasks![add]).payload_codec(auth()).refuse_plain_payloads();
    let running = start(&ours).await;
    let mut stock = proj.worker("stock", &["-c", "1", "-Q", "py"]).await;

    // Python → Rust → Python: the next step is signed by us.
    proj.script(
        "from proj import *\n(add.s(3, 4) | double.s().set(queue='py', task_id='doubled')).delay()",
    )
    .await;
    assert_eq!(running.client.job::<i64>("doubled").get(PATIENCE).await.unwrap(), 14);
    // Rust → Python → Rust.
    let there = Call::<i64>::remote("py.double").arg(&5).queue("py");
    let chained = running.client.send(chain(there).then(add::partial(1))).await.unwrap();
    assert_eq!(chained.get(PATIENCE).await.unwrap(), 11);

    // A stranger's signature, and none: dead letters with the reason.
    proj.script("import os; os.environ.update(WHO='stranger', CERTS='others')\nfrom proj import *\nadd.apply_async((1, 1), task_id='stranger')").await;
    proj.script("import os; os.environ['WHO'] = 'nobody'\nfrom proj import *\nadd.apply_async((1, 1), task_id='plain')").await;
    let letters = until("both are dead letters", PATIENCE, async || {
        let letters = running.client.store().dead_list(&DeadFilter::default(), ALL).await.unwrap();
        (letters.len() == 2).then_some(letters)
    })
    .await;
    for letter in letters {
        assert_eq!(letter.reason, DeadReason::Disallowed);
        let expected = match letter.message.headers.id() {
            Some("stranger") => "signed by \"DE stranger 3\"",
            _ => "not sealed are refused",
        };
        assert!(letter.detail.contains(expected), "{}", letter.detail);
    }
    running.stop().await;
    stock.terminate().await;
}

#[tokio::test]
async fn keys_that_cannot_be_used_are_refused_at_start() {
    let Some(python) = Python::with_libraries("5.7") else { return };
    let proj = python.app("", &[]);
    proj.script(KEYS).await;
    let at = |path: &str| proj.folder().join(path);
    let error = |made: Result<CeleryAuth>| made.unwrap_err().to_string();
    assert!(error(CeleryAuth::trusting(at("expired"))).contains("has expired"));
    assert!(error(CeleryAuth::trusting(at("nowhere"))).contains("nowhere"));
    assert!(error(CeleryAuth::trusting(at("certs/*.crt"))).contains("no certificate"));
    let trusting = || CeleryAuth::trusting(at("certs")).unwrap();
    let other = trusting().signing_as(at("rust.key"), at("certs/python.pem"));
    assert!(error(other).contains("not the key of certificate"));
    let none = trusting().signing_as(at("certs/rust.pem"), at("certs/rust.pem"));
    assert!(error(none).contains("no private RSA key"));
}
