//! `{ jsonpath: "$.a[*].b" }`: parts of the payload by JSONPath (RFC 9535).

use jsonpath_rust::parser::model::JpQuery;
use jsonpath_rust::parser::parse_json_path;
use jsonpath_rust::query::js_path_process;

use crate::diagnostic::did_you_mean;
use crate::template::write_json_value;
use crate::yaml::Node;
use crate::{Context, Diagnostic, MapError, Problem};

/// Bytes that a path may have.
const PATH_BYTES_MAX: usize = 1_024;
/// Brackets that may be open at once: the parser of paths is recursive.
const NESTING_MAX: usize = 16;
/// Keys beside `jsonpath`.
const KEYS: [&str; 2] = ["jsonpath", "default"];

/// A path and what stands for it when it finds nothing.
#[derive(Debug)]
pub(super) struct JsonPath {
    written: String,
    query: JpQuery,
    default: Option<Vec<u8>>,
}

impl JsonPath {
    pub(super) fn parse(node: &Node) -> Result<JsonPath, Diagnostic> {
        let (mut path, mut default) = (None, None);
        for (key, value) in node.as_map().unwrap_or_default() {
            match key.as_str() {
                Some("jsonpath") => path = Some(value),
                Some("default") => {
                    let mut json = Vec::new();
                    write_json_value(&value.to_json(), &mut json);
                    default = Some(json);
                }
                name => {
                    let name = name.unwrap_or_default();
                    let diagnostic = key.diagnostic(format!("unknown key `{name}` beside `jsonpath`"));
                    return Err(diagnostic.with_hint_if(did_you_mean(name, KEYS)));
                }
            }
        }
        let path = path.ok_or_else(|| node.diagnostic("the key `jsonpath` is missing"))?;
        let written = path.as_str().ok_or_else(|| path.expected("text"))?;
        check_size(written).map_err(|message| path.diagnostic(message))?;
        let query = parse_json_path(written).map_err(|error| {
            // The parser draws a picture of the place over several lines; its last line says what it expected.
            let text = error.to_string();
            let reason = text.lines().last().unwrap_or_default().trim_start_matches([' ', '=']);
            path.diagnostic(format!("bad JSONPath: {reason}"))
                .with_hint("as in `$.engine.temp_c` or `$.wheels[*].bar` (RFC 9535)")
        })?;
        Ok(JsonPath { written: written.to_owned(), query, default })
    }

    /// Appends the value of the node that is found, or the list of those of several.
    pub(super) fn write(&self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Result<(), MapError> {
        let found = match cx.json_or_reason() {
            Ok(json) => js_path_process(&self.query, json).unwrap_or_default(),
            Err(reason) if self.default.is_none() => {
                let problem = Problem::NotJson { path: self.written.clone(), reason: reason.to_owned() };
                return Err(problem.into());
            }
            Err(_) => Vec::new(),
        };
        match (found.as_slice(), &self.default) {
            ([], Some(default)) => out.extend_from_slice(default),
            ([], None) => return Err(Problem::Missing(self.written.clone()).into()),
            ([one], _) => write_json_value(one.val, out),
            (several, _) => {
                for (at, node) in several.iter().enumerate() {
                    out.push(if at == 0 { b'[' } else { b',' });
                    write_json_value(node.val, out);
                }
                out.push(b']');
            }
        }
        Ok(())
    }
}

fn check_size(path: &str) -> Result<(), String> {
    if path.len() > PATH_BYTES_MAX {
        return Err(format!("the path has {} bytes; at most {PATH_BYTES_MAX} are possible", path.len()));
    }
    let mut open = 0_usize;
    for byte in path.bytes() {
        match byte {
            b'[' | b'(' => open += 1,
            b']' | b')' => open = open.saturating_sub(1),
            _ => {}
        }
        if open > NESTING_MAX {
            return Err(format!("the path is nested deeper than {NESTING_MAX} brackets"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Where the crate departs from the standard: it lets some ill-typed functions pass, and two orders differ.
    const KNOWN_DEPARTURES: [&str; 9] = [
        "basic, descendant segment, multiple selectors",
        "basic, descendant segment, object traversal, multiple selectors",
        "filter, nested",
        "functions, count, result must be compared",
        "functions, length, result must be compared",
        "functions, length, non-singular query arg",
        "functions, length, non-singular query arg, multiple index selectors",
        "functions, length, non-singular query arg, multiple name selectors",
        "functions, value, result must be compared",
    ];

    proptest! {
        #[test]
        fn no_path_makes_it_panic(pieces in prop::collection::vec(prop::sample::select(vec![
            "$", ".", "..", "[", "]", "*", "a", "'a'", "?", "@", "(", ")", "==", "<", "&&", "||", "!", ":", ",", "0", "-1", "1.5",
            "9007199254740991", "-9007199254740991", "99999999999999999999", "length", "count", "match", "search", "value", "\"[\"",
            " ", "null", "true", "\\u00e4",
        ]), 0..16)) {
            let path = pieces.concat();
            let json: serde_json::Value = serde_json::from_str(r#"{"a":[1,{"a":"ä"},[null]],"b":{"a":1.5}}"#).expect("JSON");
            if check_size(&path).is_ok() && let Ok(query) = parse_json_path(&path) {
                let _ = js_path_process(&query, &json);
            }
        }
    }

    #[test]
    fn long_and_nested_paths_are_refused() {
        assert!(check_size(&"$.a".repeat(400)).is_err());
        assert!(check_size(&format!("$[?{}@.a{}]", "(".repeat(20), ")".repeat(20))).is_err());
        assert!(check_size("$[?(@.a && (@.b || @['c'][0]))]").is_ok());
    }

    /// The suite of the standard, when it is at hand: all that our own use of the crate rests on.
    #[test]
    fn compliance() {
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../shared/corpora/jsonpath_cts/cts.json");
        let Ok(text) = std::fs::read_to_string(&file) else {
            eprintln!("skipped: the JSONPath compliance suite is not at {}", file.display());
            return;
        };
        let suite: serde_json::Value = serde_json::from_str(&text).expect("the suite is JSON");
        let (mut passed, mut failed) = (0, Vec::new());
        for case in suite["tests"].as_array().expect("a list of tests") {
            let selector = case["selector"].as_str().expect("a selector");
            let query = check_size(selector).ok().and_then(|()| parse_json_path(selector).ok());
            let good = match (query, case["invalid_selector"].as_bool()) {
                (query, Some(true)) => query.is_none(),
                (None, _) => false,
                (Some(query), _) => {
                    let found = js_path_process(&query, &case["document"]).unwrap_or_default();
                    let found =
                        serde_json::Value::Array(found.into_iter().map(|node| node.val.clone()).collect());
                    match case["results"].as_array() {
                        Some(allowed) => allowed.contains(&found),
                        None => case["result"] == found,
                    }
                }
            };
            match good {
                true => passed += 1,
                false => failed.push(case["name"].as_str().unwrap_or_default()),
            }
        }
        println!("JSONPath compliance: {passed} passed, {} failed", failed.len());
        failed.retain(|name| !KNOWN_DEPARTURES.contains(name));
        assert!(failed.is_empty(), "{failed:#?}");
    }
}
