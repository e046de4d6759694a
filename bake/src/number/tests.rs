use super::Number;

fn number(text: &str) -> Number {
    Number::parse(text).unwrap()
}

#[test]
fn written_numbers_come_back() {
    for (written, printed) in [
        ("42", "42"),
        ("007", "7"),
        ("1.50", "1.5"),
        ("1e3", "1000"),
        ("25e-4", "0.0025"),
        ("1e30", "1000000000000000000000000000000"),
        ("0.000001", "0.000001"),
        ("-0", "-0"),
        ("12345678901234567890123", "12345678901234567890123"),
    ] {
        assert_eq!(number(written).to_string(), printed);
    }
}

#[test]
fn sums_and_quotients_are_rounded_to_512_bits() {
    assert_eq!(number("0.1").add(&number("0.2")).unwrap().to_string(), "0.3");
    let third = number("1").divide(&number("3")).unwrap();
    assert_eq!(third.to_string(), format!("0.{}5", "3".repeat(154)));
    assert_eq!(third.multiply(&number("3")).unwrap().to_string(), "1");
    assert_eq!(number("1").divide(&number("0")).unwrap().to_string(), "+Inf");
    assert_eq!(number("5").modulo(&number("0")).unwrap().to_string(), "5");
    assert_eq!(number("-7").modulo(&number("3")).unwrap().to_string(), "-1");
    assert_eq!(number("7.5").modulo(&number("2")).unwrap().to_string(), "1.5");
}

#[test]
fn doubles_are_printed_as_doubles() {
    let power = Number::from_f64(2_f64.powi(70)).unwrap();
    assert_eq!(power.to_string(), "1180591620717411300000");
    assert_eq!(Number::from_f64(0.1).unwrap().to_string(), "0.1");
    assert!((number("2.5").to_f64() - 2.5).abs() < f64::EPSILON);
    assert_eq!(number("-9223372036854775808").to_i64(), Some(i64::MIN));
    assert_eq!(number("1.5").to_i64(), None);
}

#[test]
fn numbers_are_ordered() {
    assert!(number("-1") < number("0"));
    assert!(number("0.5") < number("1e3"));
    assert_eq!(number("0"), number("-0"));
}
