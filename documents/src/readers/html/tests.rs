use std::path::Path;

use crate::{Limits, read_bytes};

fn read(page: &str) -> String {
    let page = format!("<!DOCTYPE html>{page}");
    match read_bytes(Path::new("a.html"), page.into_bytes(), &Limits::default()) {
        Ok(document) => {
            let left: Vec<String> =
                document.left_out.iter().map(|(left, count)| format!("{count} {left}")).collect();
            format!("{}\n== {}", document.markdown(), left.join(", "))
        }
        Err(error) => error.to_string(),
    }
}

#[test]
fn structure_survives_and_what_is_no_matter_of_the_page_goes_counted() {
    let page = "<html><head><title>T</title><style>p{}</style></head><body>
<header><img src=a><h1>The &amp; rules</h1><a href=x>Home</a></header>
<nav><ul><li>Menu</li></ul></nav>
<main><h2>Fees<a class=headerlink href=#f>¶</a></h2><p>It   costs
<b>five</b> euros,<br>see <code>fees --all</code> and <a href=/b>there</a>.
<ul><li>one<ol start=3><li>three</li><li><p>four</p><p>more of four</p></li></ol></li><li>two</li></ul>
<pre>if a:
    b()
</pre>
<table><caption>Prices</caption><tr><th>what<th>how much</tr><tr><td>a|b<td rowspan=2>1</tr><tr><td>c</tr></table>
<blockquote><p>Said.<p>Again.</blockquote>
<dl><dt>term</dt><dd>meaning</dd></dl>
<div hidden>secret</div><form><input><button>Go</button></form></main>
<footer>Imprint</footer><script>x()</script></body></html>";
    insta::assert_snapshot!(read(page), @r"
    # The & rules

    ## Fees

    It costs five euros,
    see `fees --all` and there.

    - one
      3. three
      4. four
        more of four
    - two

    ```
    if a:
        b()
    ```

    Prices

    | what | how much |
    | --- | --- |
    | a\|b | 1 |
    | c |  |

    > Said.

    > Again.

    term

    : meaning
    == 3 piece of navigation, 2 script or style, 2 form field, 1 hidden piece, 1 link's address
    ");
}

#[test]
fn a_page_that_hangs_together_by_tables_is_walked_through() {
    let page = "<table><tr><td><h1>A</h1><p>text</td><td><table><tr><td>x</td><td>y</td></tr></table></td></tr></table>";
    insta::assert_snapshot!(read(page), @"
    # A

    text

    | x | y |
    | --- | --- |
    ==
    ");
}

#[test]
fn a_page_without_headings_has_its_title_as_one() {
    insta::assert_snapshot!(read("<title>Only &lt;this&gt;</title><p>a"), @"
    # Only <this>

    a
    ==
    ");
}

#[test]
fn deep_pages_and_pages_of_nothing_are_refused() {
    insta::assert_snapshot!(read(&"<div>".repeat(100_000)), @"`a.html`: this HTML page has more than 512 levels of nesting; allowed: at most 512");
    insta::assert_snapshot!(read(&"<b><i>".repeat(100_000)), @"`a.html`: this HTML page has more than 512 levels of nesting; allowed: at most 512");
    insta::assert_snapshot!(read("<script>a</script>"), @"`a.html`: this HTML page has no text");
}
