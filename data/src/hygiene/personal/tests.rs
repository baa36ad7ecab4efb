//! What is found as personal, what is not, and what stands in its place.

use std::path::Path;

use super::*;

fn found(kind: Kind, text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    kind.find(text, &mut found);
    found.into_iter().map(|at| &text[at]).collect()
}

/// Each text with what is found in it, `|` between several.
fn check(kind: Kind, table: &[(&str, &str)]) {
    for (text, expected) in table {
        assert_eq!(found(kind, text).join("|"), *expected, "{} in {text:?}", kind.name());
    }
}

#[test]
fn mail_addresses() {
    check(
        Kind::Mail,
        &[
            (
                "Write to anna.schmidt+x@mail.example.co.uk, or not.",
                "anna.schmidt+x@mail.example.co.uk",
            ),
            ("<bob@example.org> and (eve@x-y.de).", "bob@example.org|eve@x-y.de"),
            ("Größe: jürgen.müller@bücher.example", "jürgen.müller@bücher.example"),
            ("联系anna@example.com。", "anna@example.com"),
            ("icon@2x.png, @anna, user@host, a@b.c, x@.de, @example.com", ""),
            ("v1.2@3.4 and 5 @ 3.20 each", ""),
        ],
    );
}

#[test]
fn ibans_hold_their_checksum_and_length() {
    check(
        Kind::Iban,
        &[
            ("DE89370400440532013000", "DE89370400440532013000"),
            ("IBAN: GB29 NWBK 6016 1331 9268 19.", "GB29 NWBK 6016 1331 9268 19"),
            (
                "NO93 8601 1117 947 and FR14 2004 1010 0505 0001 3M02 606",
                "NO93 8601 1117 947|FR14 2004 1010 0505 0001 3M02 606",
            ),
            ("to DE89 3704 0044 0532 0130 00 EUR 12", "DE89 3704 0044 0532 0130 00"),
            (
                "de89370400440532013000, Gb29 nwbk 6016 1331 9268 19",
                "de89370400440532013000|Gb29 nwbk 6016 1331 9268 19",
            ),
            (
                "DE89 3704\n  0044 0532\r\n> 0130 00, DE89-3704-\n0044-0532-0130-00",
                "DE89-3704-\n0044-0532-0130-00",
            ),
            ("DE89\u{a0}3704 0044\n\t0532 0130 00", "DE89\u{a0}3704 0044\n\t0532 0130 00"),
            ("DE89 3704  0044 0532 0130 00, DE89 3704 0044 0532 0130\n", ""),
            ("DE88370400440532013000 and XX89370400440532013000", ""),
            ("DE8937040044053201300 DE893704004405320130001 ADE89370400440532013000", ""),
        ],
    );
}

#[test]
fn names_are_found_in_every_case_and_form_and_over_line_ends() {
    let names =
        Names::new(Path::new("n"), "Jos\u{e9} Garc\u{ed}a\nANNE-MARIE\nStra\u{df}er\n가나\n")
            .unwrap();
    for (text, expected) in [
        ("by José García.", "José García"),
        ("by JOSE\u{301} GARCI\u{301}A, 12", "JOSE\u{301} GARCI\u{301}A"),
        ("İİ josé\n   garcía and anne-marie", "josé\n   garcía|anne-marie"),
        ("ẞ Anne-Marie|Straßer", "Anne-Marie|Straßer"),
        ("José Garcíá Jose Garcia, Annemarie, Anne-Maries, Strasser", ""),
        ("가낙 가나", "가나"),
    ] {
        let mut found = Vec::new();
        names.find(text, &mut found);
        let found: Vec<&str> = found.into_iter().map(|at| &text[at]).collect();
        assert_eq!(found.join("|"), expected, "in {text:?}");
    }
}

#[test]
fn cards_hold_their_check_digit_issuer_and_length() {
    check(
        Kind::Card,
        &[
            ("4111 1111 1111 1111 or 4111111111111111", "4111 1111 1111 1111|4111111111111111"),
            ("3782 822463 10005, 5555-5555-5555-4444.", "3782 822463 10005|5555-5555-5555-4444"),
            ("4111111111111112 1111111111111117 411111111111111", ""),
            ("order 41111111111111110, 4111.1111.1111.1111, x4111111111111111", ""),
            ("4111-1111 1111-1111", ""),
            (
                "4111 1111\n1111 1111, 3782 822463\r\n\t10005",
                "4111 1111\n1111 1111|3782 822463\r\n\t10005",
            ),
            ("5555-5555-\n  5555-4444.", "5555-5555-\n  5555-4444"),
            ("4111 1111 1111 1111\n5555 5555 5555 4444", "4111 1111 1111 1111|5555 5555 5555 4444"),
            // A column of numbers is no number, nor is what a line's end stands in the midst of a group of.
            (
                "4111\n1111\n1111\n1111, 41111\n11111111111, 4111 1111\n\n\n\n\n\n\n\n\n1111 1111",
                "",
            ),
        ],
    );
}

#[test]
fn addresses_of_the_internet_protocol() {
    check(
        Kind::Ip,
        &[
            ("from 192.0.2.17:8080, 198.51.100.4.", "192.0.2.17|198.51.100.4"),
            ("2001:db8::1 and fe80::1ff:fe23:4567:890a", "2001:db8::1|fe80::1ff:fe23:4567:890a"),
            ("127.0.0.1 0.0.0.0 ::1 255.255.255.255", ""),
            ("1.2.3 12:30:45 256.1.1.1 1.2.3.4.5 std::dec a::b aa:bb:cc:dd:ee:ff", ""),
        ],
    );
}

#[test]
fn telephone_numbers() {
    check(
        Kind::Phone,
        &[
            ("+49 89 1234567, +1 (555) 234-5678.", "+49 89 1234567|+1 (555) 234-5678"),
            ("+44 (0)20 7946 0018 or 0044 20 7946 0018", "+44 (0)20 7946 0018|0044 20 7946 0018"),
            (
                "(555) 234-5678, 555-234-5678, 1-555-234-5678",
                "(555) 234-5678|555-234-5678|1-555-234-5678",
            ),
            ("089/123 45 67, 0171 2345678", "089/123 45 67|0171 2345678"),
            ("Tel.: 1234567, phone 5551234 99", "1234567|5551234 99"),
            ("2024-05-17 12:30, 01.02.2024 12:30, 12/05/2024", ""),
            ("1234567 1,234,567.00 v1.2.3 3.14159265 0.123456789", ""),
            ("ISBN 978-3-16-148410-0, 4111 1111 1111 1111, 192.168.10.100", ""),
            ("+999 12345678 +12", ""),
            ("+49 89\n1234567, +1 (555)\r\n\t234-5678.", "+49 89\n1234567|+1 (555)\r\n\t234-5678"),
            ("call 555-234-\n5678, or 089/123\n 45 67", "555-234-\n5678|089/123\n 45 67"),
            ("Tel.: 030\n55512, phone\n5551234", "030\n55512|5551234"),
            ("+49 89 1234567\n+49 89 7654321\n12 of 2024", "+49 89 1234567|+49 89 7654321"),
            // Of columns, and dates.
            ("01234\n56789\n0171 234\n5678\n555-234-\n5678", ""),
            ("of 0123\n456789 rows, on 12.05.\n2024 12:30, 1 234\n567 890", ""),
        ],
    );
}

#[test]
fn keys_and_tokens() {
    let key = "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----";
    // In pieces, so that nobody takes this file for one that leaks them.
    let made = [
        format!("{}{}", "AKIA", "IOSFODNN7EXAMPLE"),
        format!("{}{}", "ghp_", "a1".repeat(18)),
        format!("{}{}", "xoxb-", "123456789012-abcdef"),
        format!("{}.{}.{}", "eyJhbGciOiJIUzI1NiJ9", "eyJzdWIiOiIxMjM0In0", "c2lnbmF0dXJl-x_y"),
        key.to_owned(),
    ];
    for secret in &made {
        assert_eq!(found(Kind::Secret, &format!("key: {secret}.")), [secret.as_str()]);
        let within = format!("x{secret}");
        assert!(secret == key || found(Kind::Secret, &within).is_empty(), "{within}");
    }
    check(Kind::Secret, &[("AKIA, ghp_short, eyJ.x.y, sk-learn, -----BEGIN CERTIFICATE-----", "")]);
    assert_eq!(
        found(Kind::Secret, "-----BEGIN PRIVATE KEY-----\nMIIE"),
        ["-----BEGIN PRIVATE KEY-----\nMIIE"]
    );
}

#[test]
fn passwords_in_urls() {
    check(
        Kind::Password,
        &[
            ("postgres://app:s3cret@db.example/x", "s3cret"),
            (
                "https://e.org/x?user=a&token=abc123&x=1 or (https://e.org/?api_key=zz).",
                "abc123|zz",
            ),
            ("https://e.org:8080/a@b https://anna@e.org http://e.org/?q=token a:b@c", ""),
        ],
    );
}

#[test]
fn no_text_takes_longer_than_others_of_its_length() {
    // Where each place cost as much as all others, this would take hours.
    let personal = all();
    for (piece, expected) in [
        ("http://", 0),
        ("AKIA", 0),
        ("-----BEGIN ", 0),
        ("DE89 ", 0),
        ("a@b.", 0),
        ("1 ", 0),
        ("1\n", 0),
        ("4111\n", 0),
        ("+1\n", 0),
        ("+1", 0),
        ("eyJ.", 0),
        ("192.0.2.1 a@b.de ", 2),
    ] {
        let times = (1 << 20) / piece.len();
        assert_eq!(personal.find(&piece.repeat(times)).len(), expected * times, "{piece}");
    }
}

fn all() -> Personal {
    let all = Personal::with_key(MaskKey::of_seed(7));
    Kind::ALL.into_iter().fold(all, |all, kind| all.kind(kind, Action::Mask))
}

#[test]
fn masks_are_the_same_for_the_same_value_and_others_for_others() {
    let personal = all();
    let shown = |text| personal.shown(text);
    insta::assert_snapshot!(
        shown("anna@x.de, Anna@X.de, bob@x.de; DE89370400440532013000, DE89 3704 0044 0532 0130 00"),
        @r"<MAIL_afc8fe2d>, <MAIL_afc8fe2d>, <MAIL_f1d4b679>; <IBAN_0d14e77a>, <IBAN_0d14e77a>"
    );
    assert_eq!(shown("nothing here"), "nothing here");
    assert_eq!(shown("https://a:anna@x.de"), shown("https://a:anna@y.de").replace("y.de", "x.de"));
    // A mask is nothing that is found again.
    let once = shown("tel. +49 89 1234567, 192.0.2.17, 4111111111111111");
    assert_eq!(shown(&once), once);
    let other =
        Personal::with_key(MaskKey::of_secret(b"0123456789abcdef")).kind(Kind::Mail, Action::Mask);
    assert_ne!(other.shown("anna@x.de"), personal.shown("anna@x.de"));
}

#[test]
fn patterns_and_names_of_ones_own_go_before() {
    let pattern = Pattern::new("case", r"AZ-\d{4}").unwrap();
    let names = Names::new(Path::new("n.txt"), "Anna Weber\nWeber\n\n").unwrap();
    let personal = all().pattern(pattern, Action::Mask).names(names, Action::Mask);
    let text = "Anna Weber (weber@x.de, Weberei) has AZ-1234, Weber not.";
    let kinds: Vec<(String, &str)> = personal
        .find(text)
        .into_iter()
        .map(|value| (personal.said(value.by).1, &text[value.at]))
        .collect();
    let kinds: Vec<String> = kinds.iter().map(|(what, value)| format!("{what}: {value}")).collect();
    insta::assert_snapshot!(kinds.join("\n"), @r"
    names of `n.txt`: Anna Weber
    mail addresses: weber@x.de
    values of the pattern `case`: AZ-1234
    names of `n.txt`: Weber
    ");
    let wrong = |regex| Pattern::new("x", regex).unwrap_err().to_string();
    insta::assert_snapshot!(wrong("a("), @r"found `a(`, which is no regular expression that is read here: unclosed group");
    insta::assert_snapshot!(wrong("a*"), @r"found `a*`, which is found in every text, also in an empty one");
    insta::assert_snapshot!(wrong(r"(\w{100}){100}"), @r"found `(\w{100}){100}`, which is no regular expression that is read here: Compiled regex exceeds size limit of 1048576 bytes.");
    let wrong = |names| Names::new(Path::new("n.txt"), names).unwrap_err().to_string();
    insta::assert_snapshot!(wrong("\n"), @r"`n.txt` holds no names: write one a line");
    insta::assert_snapshot!(wrong("Anna\n12\n"), @r#"`n.txt`:2: "12" is no name: one has at least two characters, of them a letter"#);
}

/// What overlaps takes nothing away: each finder has its action, and a mask covers all of what is masked.
#[test]
fn a_pattern_of_ones_own_hides_no_other_value() {
    let text = "call +49 30 901820, anna.berg@example.org, card 4111 1111 1111 1111, DE89 3704 0044 0532 0130 00, \
                AZ-123456@example.org";
    let with =
        |regex: &str, action: Action| all().pattern(Pattern::new("own", regex).unwrap(), action);
    let plain = all().learnt(text).into_owned();
    for regex in ["901|anna", "[0-9]+", r"AZ-\d{6}", "card .*", r"\w+", ".+"] {
        let told = with(regex, Action::Report);
        assert_eq!(told.learnt(text), plain, "{regex} is only told, and masks nothing");
        for action in [Action::Report, Action::Mask, Action::Drop, Action::Error] {
            let personal = with(regex, action);
            let found = personal.find_all(text);
            let of_kinds = all().find_all(text);
            let kinds = of_kinds.iter().map(|value| value.own.clone());
            assert!(
                kinds.into_iter().all(|own| found.iter().any(|value| value.own == own)),
                "{regex}: every value is found as without it"
            );
            for said in [personal.learnt(text).into_owned(), personal.shown(text)] {
                for rest in ["901820", "820", "berg", "1111", "0532", "example"] {
                    assert!(!said.contains(rest), "{regex}, {action:?}: {said}");
                }
            }
        }
    }
}

proptest::proptest! {
    #[test]
    fn no_text_panics_and_what_is_masked_is_gone(text in "[-+@.:/ 0-9a-zA-Z(){}ä\u{a0}=?&]{0,80}|\\PC{0,60}") {
        let personal = all();
        let values = personal.find(&text);
        proptest::prop_assert!(values.windows(2).all(|pair| pair[0].at.end <= pair[1].at.start));
        proptest::prop_assert_eq!(personal.shown(&text) == text, values.is_empty());
    }
}
