//! Large definitions, and hostile ones.

#![allow(clippy::unwrap_used, reason = "an error fails the test")]

use std::fmt::Write;
use std::time::{Duration, Instant};

#[path = "support/world.rs"]
mod world;

use world::plan;

/// Runs in a thread whose calls may be nested deeply.
fn deeply<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = std::thread::Builder::new().stack_size(256 << 20).spawn(run).unwrap();
    thread.join().unwrap()
}

/// The time that an optimized program may take for a hostile file, and a program for tests.
const LIMIT: Duration = Duration::from_secs(if cfg!(debug_assertions) { 30 } else { 1 });

#[test]
fn a_matrix_of_a_thousand_targets_is_read() {
    let mut text = String::from("variable \"TAG\" { default = \"dev\" }\n");
    for number in 0..1_000 {
        let from = if number % 10 == 0 { "base".to_owned() } else { format!("t{}", number - 1) };
        write!(text, "target \"t{number}\" {{\n  inherits = [\"{from}\"]\n  args = {{ N = \"${{TAG}}-{number}\" }}\n}}\n").unwrap();
    }
    text.push_str("target \"base\" {\n  context = \".\"\n}\n");
    let list = (0..1_000).map(|number| format!("\"m{number}\"")).collect::<Vec<_>>().join(",\n");
    write!(text, "target \"matrix\" {{\n  name = \"x-${{item}}\"\n  matrix = {{ item = [{list}] }}\n  args = {{ ITEM = upper(item) }}\n  tags = [\"app:${{item}}-${{TAG}}\"]\n}}\n").unwrap();
    assert!(text.lines().count() > 5_000);
    let (count, took) = deeply(move || {
        let begin = Instant::now();
        let plan = plan("docker-bake.hcl", text.as_bytes(), &["matrix", "t999"]).unwrap();
        (plan.targets.len(), begin.elapsed())
    });
    eprintln!("{count} targets: {took:?}");
    assert_eq!(count, 1_001);
    assert!(
        took < if cfg!(debug_assertions) { LIMIT } else { Duration::from_millis(500) },
        "{took:?}"
    );
}

/// Returns hostile files by their names.
#[expect(clippy::too_many_lines, reason = "it is a list")]
fn hostile() -> Vec<(&'static str, &'static str, String)> {
    let mut files = Vec::new();
    let mut add = |what, name, text: String| files.push((what, name, text));
    let deep = |open: &str, close: &str, count: usize| {
        format!(
            "target \"a\" {{ args = {{ A = {}1{} }} }}",
            open.repeat(count),
            close.repeat(count)
        )
    };
    add("parentheses", "a.hcl", deep("(", ")", 100_000));
    add("lists", "a.hcl", deep("[", "]", 100_000));
    add("objects", "a.hcl", deep("{a=", "}", 100_000));
    add("calls", "a.hcl", deep("upper(", ")", 100_000));
    add("templates", "a.hcl", deep("\"${", "}\"", 100_000));
    add("negations", "a.hcl", deep("!", "", 1_000_000));
    add("conditions", "a.hcl", deep("true ? ", " : 1", 100_000));
    add("sums", "a.hcl", deep("1 +", "", 1_000_000));
    add("blocks", "a.hcl", format!("{}{}", "a {\n".repeat(100_000), "}\n".repeat(100_000)));
    add(
        "JSON lists",
        "a.json",
        format!("{{\"target\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000)),
    );
    add("JSON objects", "a.json", format!("{}1{}", "{\"a\":".repeat(100_000), "}".repeat(100_000)));
    add(
        "YAML lists",
        "a.yaml",
        format!("services: {}{}", "[".repeat(100_000), "]".repeat(100_000)),
    );
    let mut doubled = "variable \"v0\" { default = \"0123456789abcdef\" }\n".to_owned();
    for number in 1..64 {
        writeln!(
            doubled,
            "variable \"v{number}\" {{ default = \"${{v{0}}}${{v{0}}}\" }}",
            number - 1
        )
        .unwrap();
    }
    doubled.push_str("target \"a\" { args = { A = v63 } }\n");
    add("doubled text", "a.hcl", doubled);
    let mut lists = "variable \"v0\" { default = [1, 2] }\n".to_owned();
    for number in 1..64 {
        writeln!(lists, "variable \"v{number}\" {{ default = concat(v{0}, v{0}) }}", number - 1)
            .unwrap();
    }
    lists.push_str("target \"a\" { args = { A = length(v63) } }\n");
    add("doubled lists", "a.hcl", lists);
    let mut nested = "variable \"v0\" { default = [1, 2] }\n".to_owned();
    for number in 1..64 {
        writeln!(nested, "variable \"v{number}\" {{ default = [v{0}, v{0}] }}", number - 1)
            .unwrap();
    }
    nested.push_str("target \"a\" { args = { A = jsonencode(v63) } }\n");
    add("nested lists", "a.hcl", nested);
    let functions = "function \"f\" {\n  params = [n]\n  result = n < 1 ? 1 : f(n - 1) + f(n - 1)\n}\ntarget \"a\" { args = { A = f(100) } }\n";
    add("recursion", "a.hcl", functions.to_owned());
    let all = "variable \"l\" { default = range(0, 1000) }\ntarget \"a\" { args = { A = length([for a in l : [for b in l : [for c in l : [for d in l : 1]]]]) } }\n";
    add("loops", "a.hcl", all.to_owned());
    let product = "variable \"l\" { default = range(0, 1000) }\ntarget \"a\" { args = { A = length(setproduct(l, l, l, l)) } }\n";
    add("products", "a.hcl", product.to_owned());
    add("matrix", "a.hcl", {
        let axis = |name: &str| format!("{name} = range(0, 1000)\n");
        format!(
            "target \"a\" {{\n name = \"x${{a}}-${{b}}-${{c}}\"\n matrix = {{\n{}{}{}}}\n}}",
            axis("a"),
            axis("b"),
            axis("c")
        )
    });
    add("a regex", "a.hcl", "target \"a\" { args = { A = regex_replace(\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\", \"(a*)*(a*)*(a*)*b\", \"x\"), B = regex(\"((((a{1,100}){1,100}){1,100}){1,100})\", \"a\") } }".to_owned());
    add(
        "a format",
        "a.hcl",
        "target \"a\" { args = { A = format(\"%1000000000d\", 1) } }".to_owned(),
    );
    add(
        "a range",
        "a.hcl",
        "target \"a\" { args = { A = length(range(1000000000000)) } }".to_owned(),
    );
    add("a power", "a.hcl", "target \"a\" { args = { A = pow(10, 100000000) } }".to_owned());
    add("an exponent", "a.hcl", "target \"a\" { args = { A = 1e999999999 } }".to_owned());
    add("bcrypt", "a.hcl", "target \"a\" { args = { A = bcrypt(\"a\", 31) } }".to_owned());
    add("a cycle of variables", "a.hcl", "variable \"a\" { default = b }\nvariable \"b\" { default = a }\ntarget \"a\" { args = { A = a } }".to_owned());
    add(
        "a cycle of targets",
        "a.hcl",
        "target \"a\" { inherits = [\"b\"] }\ntarget \"b\" { inherits = [\"a\"] }".to_owned(),
    );
    add("a cycle of contexts", "a.hcl", "target \"a\" { contexts = { b = \"target:b\" } }\ntarget \"b\" { contexts = { a = \"target:a\" } }".to_owned());
    let chain = (0..20_000).map(|n| format!("target \"t{n}\" {{ inherits = [\"t{}\"] }}\n", n + 1));
    add(
        "a chain of targets",
        "a.hcl",
        format!(
            "{}target \"a\" {{ inherits = [\"t0\"] }}\ntarget \"t20000\" {{}}",
            chain.collect::<String>()
        ),
    );
    let diamonds =
        (0..200).map(|n| format!("target \"t{n}\" {{ inherits = [\"t{0}\", \"t{0}\"] }}\n", n + 1));
    add(
        "diamonds",
        "a.hcl",
        format!(
            "{}target \"a\" {{ inherits = [\"t0\"] }}\ntarget \"t200\" {{}}",
            diamonds.collect::<String>()
        ),
    );
    let links = (0..200).map(|n| {
        format!(
            "target \"t{n}\" {{ contexts = {{ a = \"target:t{0}\", b = \"target:t{0}\" }} }}\n",
            n + 1
        )
    });
    add(
        "diamonds of contexts",
        "a.hcl",
        format!(
            "{}target \"a\" {{ contexts = {{ a = \"target:t0\" }} }}\ntarget \"t200\" {{}}",
            links.collect::<String>()
        ),
    );
    let policies =
        (0..200).map(|n| format!("target \"t{n}\" {{ inherits = [\"t{0}\", \"t{0}\"] }}\n", n + 1));
    add(
        "diamonds of policies",
        "a.hcl",
        format!(
            "{}target \"a\" {{ inherits = [\"t0\"] }}\ntarget \"t200\" {{ policy = [{{ strict = true }}] }}",
            policies.collect::<String>()
        ),
    );
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for number in 1..30 {
        let items = vec![format!("*a{}", number - 1); 9].join(", ");
        writeln!(laughs, "a{number}: &a{number} [{items}]").unwrap();
    }
    add("YAML anchors", "a.yaml", laughs);
    add("an anchor in itself", "a.yaml", "services: &a\n  a: {build: {args: *a}}\n".to_owned());
    let defaults = format!(
        "services:\n  a:\n    build:\n      context: {}x{}\n",
        "${A:-".repeat(50_000),
        "}".repeat(50_000)
    );
    add("defaults in defaults", "a.yaml", defaults);
    files
}

#[test]
fn hostile_files_end_soon() {
    for (what, name, text) in hostile() {
        let (result, took) = deeply(move || {
            let begin = Instant::now();
            let result = plan(name, text.as_bytes(), &["a"]);
            (
                result.map(|plan| plan.targets.len()).map_err(|error| error.to_string()),
                begin.elapsed(),
            )
        });
        let shown: String = format!("{result:?}").chars().take(150).collect();
        eprintln!("{what}: {took:?}: {shown}");
        assert!(took < LIMIT, "{what}: {took:?}");
    }
}
