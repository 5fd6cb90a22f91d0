//! Every refusal has a reason from the closed list, and the operator's page tells each as it is.

use std::collections::BTreeMap;

use headcount::refusal::Refusal;

use crate::support::top;

/// Reason and status as `docs/operations.md` has them.
fn documented() -> BTreeMap<String, String> {
    let page = std::fs::read_to_string(top().join("docs/operations.md")).unwrap();
    let table = page.split("| reason | status |").nth(1).unwrap();
    let mut rows = BTreeMap::new();
    for line in table.lines().skip(2).take_while(|line| line.starts_with('|')) {
        let mut cells = line.split('|').skip(1).map(str::trim);
        let (reasons, status) = (cells.next().unwrap(), cells.next().unwrap());
        for reason in reasons.split(", ") {
            let known = rows.insert(reason.trim_matches('`').to_owned(), status.to_owned());
            assert!(known.is_none(), "{reason} stands there twice");
        }
    }
    rows
}

#[test]
fn the_operators_page_has_each_reason_with_its_status_and_no_other() {
    let mut rows = documented();
    for refusal in Refusal::ALL {
        let row = rows.remove(refusal.code());
        let row = row.unwrap_or_else(|| panic!("{refusal} is not on the page"));
        let status = refusal.status().as_u16().to_string();
        // Before HTTP is spoken there is nothing to answer with.
        assert!(row == status || row == "closed", "{refusal}: {row} instead of {status}");
    }
    assert!(rows.is_empty(), "nobody refuses for these: {rows:?}");
}

#[test]
fn a_reason_is_one_word_and_fits_its_status() {
    for refusal in Refusal::ALL {
        let code = refusal.code();
        let fine = |byte: u8| byte == b'_' || byte.is_ascii_lowercase() || byte.is_ascii_digit();
        assert!(code.bytes().all(fine), "{code}");
        assert!(refusal.status().is_client_error() || refusal.status().is_server_error(), "{code}");
    }
}
