"""Secrets in URLs and texts, by the vendors' documents; and texts that only look like secrets."""

from __future__ import annotations

import time
from urllib.parse import quote

import pytest

from pipeline.core.redaction import HIDDEN, has_secret, is_secret_assignment, is_url_with_secret, without_secrets

SECRET = "hunter2/Zm9v"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
SIGNED = {
    "AWS, version 4": "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Date=20260101T000000Z&X-Amz-Signature={}",
    "AWS, with a session": "X-Amz-Security-Token={}",
    "AWS, version 2": "AWSAccessKeyId=AKIA&Expires=1&Signature={}",
    "Google, version 4": "X-Goog-Algorithm=GOOG4-RSA-SHA256&X-Goog-Signature={}",
    "Google, version 2": "GoogleAccessId=x@y&Expires=1&Signature={}",
    "Google, a token": "access_token={}",
    "Azure": "sv=2024-11-04&ss=b&se=2026-01-01&sp=r&sig={}",
    "Alibaba, version 1": "OSSAccessKeyId=x&Expires=1&Signature={}",
    "Alibaba, version 4": "x-oss-date=1&x-oss-signature={}",
    "Alibaba, with a session": "x-oss-security-token={}",
    "Tencent": "q-sign-algorithm=sha1&q-sign-time=1;2&q-signature={}",
    "Tencent, with a session": "x-cos-security-token={}",
    "Tencent, old": "sign={}0123456789",
    "Huawei": "AccessKeyId=x&x-obs-security-token={}",
    "Volcengine": "X-Tos-Signature={}",
    "Baidu": "authorization={}",
    "Kingsoft": "KSSAccessKeyId=x&Signature={}",
    "Backblaze": "Authorization={}",
    "Swift": "temp_url_sig={}&temp_url_expires=1",
    "WebHDFS": "op=OPEN&delegation={}",
    "CloudFront": "Policy=x&Key-Pair-Id=y&Signature={}",
    "Akamai": "hdnts=exp=1~acl=/*~hmac={}",
    "Dropbox": "dl=1&rlkey={}",
    "OneDrive": "authkey={}",
    "Discord": "ex=1&is=2&hm={}",
    "Firebase": "alt=media&token={}",
    "GitLab": "private_token={}",
    "Google Maps": "key=AIzaSyA01234567890123456789012345678901",
    "by name": "clientSecret={}",
    "by name, in brackets": "auth[password]={}",
    "upper case": "X-AMZ-SIGNATURE={}",
    "percent-encoded name": "%73ig={}",
    "percent-encoded name, all of it": "%53%69%67%6e%61%74%75%72%65={}",
    "camel case": "apiKey={}",
    "kebab case": "api-key={}",
    "a token by its shape": "x=" + JWT,
}


@pytest.mark.parametrize("query", SIGNED.values(), ids=SIGNED)
@pytest.mark.parametrize(
    "form", ["https://host/x?{}", " \tHTTPS://HOST/x?a=1&{}&b=2", "s3://bucket/x#{}", "zip://x.zip::https://host/x?{}"]
)
def test_signed_urls(query: str, form: str) -> None:
    url = form.format(query.format(quote(SECRET)))
    assert has_secret(url)
    reported = without_secrets(f"cannot open '{url}': denied")
    assert "hunter2" not in reported
    assert JWT not in reported
    assert "AIza" not in reported
    assert reported.startswith("cannot open '")
    assert reported.endswith("denied")
    assert not has_secret(without_secrets(url))


@pytest.mark.parametrize(
    "url",
    [
        "https://user:hunter2@host/x",
        "https://hunter2@host/x",
        "https://:hunter2@host/x",
        "https://user:pa'hunter2@host/x",
        "HTTPS://user:hunter2@host:8080/x?page=2",
        "\n https://user:hunter2@host",
        "s3://AKIAX:hunter2@bucket/x",
        "s3://AKIAX:hun/ter2@bucket/x",
        "simplecache::s3://AKIAX:hunter2@bucket/x",
        "zip://a.zip::simplecache::https://user:hunter2@host/a.zip",
        "a b c https://user:hunter2@host",
        "https://host/a,https://user:hunter2@host/b",
        "https://archive.org/web/https://user:hunter2@host/b",
        "https://proxy/?url=https%3A%2F%2Fuser%3Ahunter2%40host%2Fx",
        "https://proxy/?url=https%3A%2F%2Fhost%2Fx%3Fsig%3Dhunter2",
        "https://proxy/?url=https://host/x?sig=hunter2",
        "git+https://hunter2@host/x.git",
        "webdav://hunter2@host/x",
        "https://objectstorage.eu-frankfurt-1.oraclecloud.com/p/hunter2/n/ns/b/bucket/o/x.jpg",
        f"https://customer-x.cloudflarestream.com/{JWT}/manifest.mp4",
    ],
)
def test_secrets_of_other_places_in_a_url(url: str) -> None:
    assert has_secret(url)
    reported = without_secrets(f"({url})")
    assert not any(words in reported for words in ("hunter2", "hun/ter2", JWT))
    assert HIDDEN in reported


ORDINARY = [
    "s3://bucket/a:b@c.jpg",
    "s3://bucket/folder/a@2x.png?versionId=3HL4kqtJvjVBH40Nrjfkd",
    "s3://AKIAX@bucket/x",
    "abfs://container@account.dfs.core.windows.net/x",
    "sftp://user@host/x",
    "hdfs://user@host:8020/a:b@c",
    "github://owner:repository@0123abc/data/x.jpg",
    "http://host:9000/x",
    "http://[::1]:9000/x@y",
    "file:///C:/x@y?sig=",
    "https://host/x?page=2&key=folder/picture.jpg",
    "https://host/x?page_token=abc&nextToken=abc&continuation-token=abc",
    "https://host/x?author=me&design=2&tokens=5&max_tokens=6&signal=a&keyword=b&pw=600&sigma=1&monkey=c&code=US",
    "https://host/x?v=d41d8cd98f00b204e9800998ecf8427e&hash=5d41402abc4b2a76b9719d911017c592",
    "https://host/x?token=&sig=",
    "https://host/x?url=https%3A%2F%2Fother%2Fy%3Fpage%3D2",
    "https://host/@user/status/1?utm_source=a&sign=plus",
    "https://images.host/x.jpg?hm=12&w=600",
    "hf://datasets/owner/name@main/x.parquet",
    "/local/a:b@c?sig=1",
    "query: ",
    "a secret: password=1",
]


@pytest.mark.parametrize("url", ORDINARY)
def test_ordinary_urls_are_left_alone(url: str) -> None:
    assert not has_secret(url)
    if "password" not in url:
        assert without_secrets(f"cannot read {url!r}; try again") == f"cannot read {url!r}; try again"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        (
            "{'Authorization': 'AWS4-HMAC-SHA256 Credential=AKIA/x, Signature=1'}",
            "{'Authorization': 'AWS4-HMAC-SHA256 ***'}",
        ),
        ("authorization=Basic dXNlcjpodW50ZXIy", "authorization=Basic ***"),
        ("x-amz-security-token: FwoGZXIv", "x-amz-security-token: ***"),
        ("{'key': 'a', 'secret': 'hunter2', 'anon': False}", "{'key': 'a', 'secret': '***', 'anon': False}"),
        ('"client_secret": "hun\\"ter2", "x": 1', '"client_secret": "***", "x": 1'),
        ("AccountName=a;AccountKey=aHVudGVyMg==;x=1", "AccountName=a;AccountKey=***;x=1"),
        ("aws_secret_access_key=hunter2 region=x", "aws_secret_access_key=*** region=x"),
        ("AWS_SESSION_TOKEN: hunter2", "AWS_SESSION_TOKEN: ***"),
        (f"the token {JWT} is over", "the token *** is over"),
        ("hf_" + "a1B2" * 9 + " is refused", "*** is refused"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMII\n-----END RSA PRIVATE KEY----- x", "*** x"),
        ("passwords and secrets: none", "passwords and secrets: none"),
        ("features.t.store.tokens: found 'x'; token_dim: 5", "features.t.store.tokens: found 'x'; token_dim: 5"),
        (
            "tokenizer: 'a'; encoder=b; author: me; signature of f(x)",
            "tokenizer: 'a'; encoder=b; author: me; signature of f(x)",
        ),
        ("{'password': None, 'secret': ''}", "{'password': None, 'secret': ''}"),
    ],
)
def test_texts_of_other_libraries(text: str, expected: str) -> None:
    assert without_secrets(text) == expected


def test_what_the_environment_hides(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = {
        "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG",
        "AWS_SESSION_TOKEN": "IQoJb3JpZ2lu==",
        "HF_TOKEN": "abcdefgh12",
        "AZURE_STORAGE_CONNECTION_STRING": "DefaultEndpoints=x;y",
        "MY_PASSWORD": "/starts/with a slash",
    }
    shown = {
        "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
        "AWS_WEB_IDENTITY_TOKEN_FILE": "some/file/name",
        "TOKENIZERS_PARALLELISM": "falsefalse",
        "SHORT_TOKEN": "true",
        "KEY_PASSWORD": "/proc/self/status",
    }
    for name, value in {**hidden, **shown}.items():
        monkeypatch.setenv(name, value)
    for value in hidden.values():
        assert without_secrets(f"refused: <{value}>") == "refused: <***>"
        assert without_secrets(f"GET /?x={quote(value, safe='')} 403") == "GET /?x=*** 403"
    for value in shown.values():
        assert without_secrets(f"refused: <{value}>") == f"refused: <{value}>"


def test_hostile_texts_take_little_time() -> None:
    hostile = [
        unit * (60_000 // len(unit))
        for unit in ("a", "a-", "-eyJ", "://", "https://a@", "?a=", "=", "secret", "%", "x://y:z")
    ]
    for text in [*hostile, *(f"https://{text}" for text in hostile), *(f"x://?a={text}" for text in hostile)]:
        started = time.process_time()
        has_secret(text)
        without_secrets(text[:10_000])
        assert time.process_time() - started < 1.0, text[:20]


@pytest.mark.parametrize(
    "value", ["s3://b/" + "eyJ-" * 16384, "s3://b/?a=" + "eyJaaaaaaaa." * 5000, "eyJ" + "a.-" * 20000]
)
def test_no_value_of_a_manifest_takes_long(value: str) -> None:
    started = time.perf_counter()
    has_secret(value)
    without_secrets(value)
    assert time.perf_counter() - started < 1.0


def test_a_user_behind_an_empty_host_is_one() -> None:
    assert has_secret("s3:////user:secret@host/a.jpg")


@pytest.mark.parametrize("before", [70_000, 1 << 16, (1 << 16) - 9, 200_000])
@pytest.mark.parametrize(
    "secret", ["&X-Amz-Signature=0123456789abcdef", "&u=https://user:secret@host/b", "&token=abcdefgh"]
)
def test_a_secret_far_behind_is_one(before: int, secret: str) -> None:
    url = f"https://host/a?b={'x' * before}"
    assert has_secret(url + secret)
    assert has_secret(url + secret + "&c=" + "y" * 70_000)
    assert not has_secret(url)


@pytest.mark.parametrize("value", ["https://h/?sig=" + "&hm=1" * (1 << 18), "x://" + "https://a@" * (1 << 17)])
def test_no_long_value_takes_long(value: str) -> None:
    started = time.process_time()
    has_secret(value)
    assert time.process_time() - started < 10.0


def test_a_text_that_mentions_a_url_is_none() -> None:
    assert is_url_with_secret(" https://h/?token=abc\n")
    assert not is_url_with_secret("see https://h/?token=abc")
    assert not is_url_with_secret("https://h/?token=abc is mine")
    assert not is_url_with_secret("https://h/?page=1")


def test_variables_that_may_hold_a_secret() -> None:
    for name in (
        *("AWS_SECRET_ACCESS_KEY", "PGPASSWORD", "SNOWFLAKE_PWD", "AZURE_STORAGE_KEY", "AWS_CREDENTIALS", "HTTP_AUTH"),
        *("HF_TOKEN", "AWS_SESSION_TOKEN", "api_key", "PASSPHRASE", "MYSQL_PASS", "SLACK_WEBHOOK_URL"),
    ):
        assert is_secret_assignment(name, "x"), name
    for name in ("AWS_ENDPOINT_URL", "TOKENIZERS_PARALLELISM", "HF_HOME", "OMP_NUM_THREADS"):
        assert not is_secret_assignment(name, "1"), name
    assert is_secret_assignment("URL", "https://me:password@host/")
