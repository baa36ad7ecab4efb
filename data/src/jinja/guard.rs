//! A template rewritten so that everything it does is counted: it is a program from a stranger.
//!
//! The engine has no bound on the size of a text or the length of a list, and none for its reader's
//! stack. So a template is looked at before it is read (size, length of a tag), read on a thread whose
//! stack is known, and written out again with calls around whatever can make something large: `a ~ b`
//! becomes `graft_concat(a, b)`, each pass of a loop begins with `graft_tick()`, plain text becomes the
//! value of a call. Lines stay where they were. [`super::budget`] counts.

use std::fmt::Write as _;

use minijinja::machinery::ast::{
    BinOpKind, Call, CallArg, CompareOpKind, Expr, IfCond, Macro, Stmt, UnaryOpKind,
};
use minijinja::machinery::{Span, Token, WhitespaceConfig, parse, tokenize};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, Value};

use crate::caught::caught;

/// Releases' templates have up to 20 KB.
const LARGEST: usize = 1 << 20;
/// The engine counts lines in 16 bits.
const MOST_LINES: usize = 60_000;
/// Tokens between `{{` and `}}`: as deep as an expression can get.
const LONGEST_TAG: usize = 2_000;
/// Tokens of a template.
const MOST_TOKENS: usize = 100_000;
/// Each is read within the one before.
const MOST_ELIFS: usize = 200;
/// For the reader and for what is done with what it read.
const STACK: usize = 64 << 20;

/// Filters that make no list of a text's characters, by themselves or by the name of another filter.
const WHOLE: [&str; 21] = [
    "capitalize",
    "count",
    "d",
    "default",
    "e",
    "escape",
    "first",
    "float",
    "indent",
    "int",
    "join",
    "last",
    "length",
    "lower",
    "replace",
    "safe",
    "string",
    "title",
    "tojson",
    "trim",
    "upper",
];

/// The template with its work counted.
///
/// # Errors
/// It is too large, or cannot be parsed.
pub(super) fn guarded(source: &str) -> Result<String, Error> {
    check_size(source)?;
    let refused = |what: &str| Error::new(ErrorKind::SyntaxError, what.to_owned());
    let work = || {
        let thread = std::thread::Builder::new().stack_size(STACK);
        std::thread::scope(|scope| {
            let thread = thread
                .spawn_scoped(scope, || caught(|| rewritten(source)))
                .map_err(|error| refused(&format!("no thread to read it on: {error}")))?;
            let read = thread.join().ok().flatten();
            read.unwrap_or_else(|| Err(refused("its reader gave up on it")))
        })
    };
    work()
}

/// Blanks around blocks, as transformers sets them.
fn whitespace() -> WhitespaceConfig {
    WhitespaceConfig { keep_trailing_newline: false, lstrip_blocks: true, trim_blocks: true }
}

fn check_size(source: &str) -> Result<(), Error> {
    let refused = |what: String| Err(Error::new(ErrorKind::SyntaxError, what));
    if source.len() > LARGEST {
        return refused(format!("it has {} bytes, and at most {LARGEST} are read", source.len()));
    }
    let lines = source.bytes().filter(|&byte| byte == b'\n').count();
    if lines > MOST_LINES {
        return refused(format!("it has {lines} lines, and at most {MOST_LINES} are read"));
    }
    let (mut all, mut here, mut elifs) = (0, 0, 0);
    for token in tokenize(source, false, SyntaxConfig, whitespace()) {
        // What cannot be told apart is said by the parser, with its line.
        let Ok((token, span)) = token else { return Ok(()) };
        all += 1;
        here += 1;
        match token {
            Token::TemplateData(_) | Token::VariableStart | Token::BlockStart => here = 0,
            Token::Ident("elif") => elifs += 1,
            _ => {}
        }
        let line = span.start_line;
        if here > LONGEST_TAG {
            return refused(format!("the tag of line {line} has more than {LONGEST_TAG} parts"));
        }
        if all > MOST_TOKENS || elifs > MOST_ELIFS {
            return refused(format!(
                "it has more than {MOST_TOKENS} parts or {MOST_ELIFS} times `elif`"
            ));
        }
    }
    Ok(())
}

fn rewritten(source: &str) -> Result<String, Error> {
    let tree = parse(source, "template", SyntaxConfig, whitespace())?;
    let mut writer = Writer { out: String::with_capacity(2 * source.len()), line: 1 };
    writer.statement(&tree)?;
    Ok(writer.out)
}

/// Writes a tree as a template.
struct Writer {
    out: String,
    /// The line that `out` ends in.
    line: usize,
}

type Written = Result<(), Error>;

impl Writer {
    fn put(&mut self, text: &str) {
        self.out.push_str(text);
    }

    /// Opens a tag on the line that it has in the source.
    fn open(&mut self, sign: &str, span: Span) {
        self.put(sign);
        while self.line < usize::from(span.start_line) {
            self.out.push('\n');
            self.line += 1;
        }
        self.out.push(' ');
    }

    fn body(&mut self, statements: &[Stmt<'_>]) -> Written {
        statements.iter().try_for_each(|statement| self.statement(statement))
    }

    /// A body that counts each time it is run.
    fn counted(&mut self, statements: &[Stmt<'_>]) -> Written {
        self.put("{{ graft_tick() }}");
        self.body(statements)
    }

    fn statement(&mut self, statement: &Stmt<'_>) -> Written {
        match statement {
            Stmt::Template(part) => self.body(&part.children)?,
            Stmt::EmitExpr(part) => {
                self.open("{{", part.span());
                match &part.expr {
                    // Only as a tag of its own does it go deeper into a loop.
                    Expr::Call(call) if is_loop(call) => self.call(call)?,
                    expr => self.expression(expr)?,
                }
                self.put(" }}");
            }
            Stmt::EmitRaw(part) => {
                self.open("{{", part.span());
                self.put("graft_raw(");
                self.text(part.raw);
                self.put(") }}");
            }
            Stmt::ForLoop(part) => {
                self.open("{% for", part.span());
                if is_stored(&part.target) {
                    return Err(Error::new(
                        ErrorKind::SyntaxError,
                        "a loop over a namespace's place",
                    ));
                }
                self.target(&part.target)?;
                self.put(" in graft_see(");
                self.expression(&part.iter)?;
                self.put(")");
                if let Some(filter) = &part.filter_expr {
                    self.put(" if ");
                    self.expression(filter)?;
                }
                self.put(if part.recursive { " recursive %}" } else { " %}" });
                self.counted(&part.body)?;
                if !part.else_body.is_empty() {
                    self.put("{% else %}");
                    self.body(&part.else_body)?;
                }
                self.put("{% endfor %}");
            }
            Stmt::IfCond(part) => {
                self.open("{% if", part.span());
                self.condition(part)?;
            }
            Stmt::WithBlock(part) => {
                self.open("{% with", part.span());
                for (index, (target, value)) in part.assignments.iter().enumerate() {
                    self.put(if index > 0 { ", " } else { "" });
                    self.assignment(target, value)?;
                }
                self.put(" %}");
                self.body(&part.body)?;
                self.put("{% endwith %}");
            }
            Stmt::Set(part) => {
                self.open("{% set", part.span());
                self.assignment(&part.target, &part.expr)?;
                self.put(" %}");
            }
            other => self.rarer(other)?,
        }
        Ok(())
    }

    fn rarer(&mut self, statement: &Stmt<'_>) -> Written {
        match statement {
            Stmt::SetBlock(part) => {
                self.open("{% set", part.span());
                self.target(&part.target)?;
                if let Some(filter) = &part.filter {
                    self.put(" | ");
                    self.filter(filter)?;
                }
                self.put(" %}");
                self.body(&part.body)?;
                self.put("{% endset %}");
            }
            Stmt::AutoEscape(part) => {
                self.open("{% autoescape", part.span());
                self.expression(&part.enabled)?;
                self.put(" %}");
                self.body(&part.body)?;
                self.put("{% endautoescape %}");
            }
            Stmt::FilterBlock(part) => {
                self.open("{% filter", part.span());
                self.filter(&part.filter)?;
                self.put(" %}");
                self.body(&part.body)?;
                self.put("{% endfilter %}");
            }
            Stmt::Macro(part) => {
                self.open("{% macro", part.span());
                self.put(part.name);
                self.parameters(part)?;
                self.put(" %}");
                self.counted(&part.body)?;
                self.put("{% endmacro %}");
            }
            Stmt::CallBlock(part) => {
                self.open("{% call", part.span());
                self.parameters(&part.macro_decl)?;
                self.put(" ");
                self.call(&part.call)?;
                self.put(" %}");
                self.counted(&part.macro_decl.body)?;
                self.put("{% endcall %}");
            }
            Stmt::Continue(part) => {
                self.open("{% continue", part.span());
                self.put("%}");
            }
            Stmt::Break(part) => {
                self.open("{% break", part.span());
                self.put("%}");
            }
            Stmt::Do(part) => {
                self.open("{% do", part.span());
                self.call(&part.call)?;
                self.put(" %}");
            }
            _ => return Err(Error::new(ErrorKind::SyntaxError, "a tag that is not known here")),
        }
        Ok(())
    }

    /// From the condition on; `elif` is read as an `if` in what else there is.
    fn condition(&mut self, first: &IfCond<'_>) -> Written {
        let mut part = first;
        loop {
            self.expression(&part.expr)?;
            self.put(" %}");
            self.body(&part.true_body)?;
            match &part.false_body[..] {
                [] => break,
                [Stmt::IfCond(next)] => {
                    self.open("{% elif", next.span());
                    part = next;
                }
                other => {
                    self.put("{% else %}");
                    self.body(other)?;
                    break;
                }
            }
        }
        self.put("{% endif %}");
        Ok(())
    }

    fn assignment(&mut self, target: &Expr<'_>, value: &Expr<'_>) -> Written {
        self.target(target)?;
        self.put(if is_stored(target) { " = graft_store(" } else { " = (" });
        self.expression(value)?;
        self.put(")");
        Ok(())
    }

    /// What is assigned to: names, lists of them, a place of a namespace.
    fn target(&mut self, target: &Expr<'_>) -> Written {
        match target {
            Expr::List(list) => {
                self.put("(");
                for item in &list.items {
                    self.target(item)?;
                    self.put(", ");
                }
                self.put(")");
                Ok(())
            }
            Expr::Var(name) => {
                self.put(name.id);
                Ok(())
            }
            Expr::GetAttr(part) => {
                self.target(&part.expr)?;
                self.put(".");
                self.put(part.name);
                Ok(())
            }
            _ => Err(Error::new(ErrorKind::SyntaxError, "this cannot be assigned to")),
        }
    }

    fn parameters(&mut self, Macro { args, defaults, .. }: &Macro<'_>) -> Written {
        let required = args.len().saturating_sub(defaults.len());
        self.put("(");
        for (index, argument) in args.iter().enumerate() {
            self.put(if index > 0 { ", " } else { "" });
            self.target(argument)?;
            if let Some(default) = index.checked_sub(required).and_then(|at| defaults.get(at)) {
                self.put("=");
                self.expression(default)?;
            }
        }
        self.put(")");
        Ok(())
    }

    fn expression(&mut self, expr: &Expr<'_>) -> Written {
        match expr {
            Expr::Var(part) => self.put(part.id),
            Expr::Const(part) => self.constant(&part.value)?,
            Expr::Slice(part) => {
                self.put("graft_sized(graft_see(");
                self.expression(&part.expr)?;
                self.put(")[");
                for (index, bound) in [&part.start, &part.stop, &part.step].into_iter().enumerate()
                {
                    self.put(if index > 0 { ":" } else { "" });
                    if let Some(bound) = bound {
                        self.expression(bound)?;
                    }
                }
                self.put("])");
            }
            Expr::UnaryOp(part) => {
                self.put(match part.op {
                    UnaryOpKind::Not => "(not ",
                    UnaryOpKind::Neg => "(-",
                });
                self.expression(&part.expr)?;
                self.put(")");
            }
            Expr::BinOp(part) => self.operation(part.op, expr)?,
            Expr::Compare(part) => {
                self.put("(");
                self.seen(&part.expr)?;
                for next in &part.ops {
                    self.put(match next.op {
                        CompareOpKind::Eq => " == ",
                        CompareOpKind::Ne => " != ",
                        CompareOpKind::Lt => " < ",
                        CompareOpKind::Lte => " <= ",
                        CompareOpKind::Gt => " > ",
                        CompareOpKind::Gte => " >= ",
                        CompareOpKind::In => " in ",
                        CompareOpKind::NotIn => " not in ",
                    });
                    self.seen(&next.expr)?;
                }
                self.put(")");
            }
            Expr::IfExpr(part) => {
                self.put("(");
                self.expression(&part.true_expr)?;
                self.put(" if ");
                self.expression(&part.test_expr)?;
                if let Some(other) = &part.false_expr {
                    self.put(" else ");
                    self.expression(other)?;
                }
                self.put(")");
            }
            Expr::Filter(_) => {
                self.put("graft_sized(");
                self.filter(expr)?;
                self.put(")");
            }
            Expr::Test(part) => {
                self.put("(");
                if part.args.is_empty() {
                    self.base(&part.expr)?;
                } else {
                    self.seen(&part.expr)?;
                }
                let _ = write!(self.out, " is {}", part.name);
                if !part.args.is_empty() {
                    self.arguments(&part.args)?;
                }
                self.put(")");
            }
            Expr::GetAttr(part) => {
                self.base(&part.expr)?;
                self.put(".");
                self.put(part.name);
            }
            Expr::GetItem(part) => {
                self.base(&part.expr)?;
                self.put("[");
                self.expression(&part.subscript_expr)?;
                self.put("]");
            }
            Expr::Call(part) => {
                self.put("graft_sized(");
                self.call(part)?;
                self.put(")");
            }
            other => self.literal(other)?,
        }
        Ok(())
    }

    /// Lists and maps.
    fn literal(&mut self, expr: &Expr<'_>) -> Written {
        match expr {
            Expr::List(part) => {
                self.put("graft_sized([");
                for item in &part.items {
                    self.expression(item)?;
                    self.put(", ");
                }
                self.put("])");
            }
            Expr::Map(part) => {
                self.put("graft_sized({");
                for (key, value) in part.keys.iter().zip(&part.values) {
                    self.expression(key)?;
                    self.put(": ");
                    self.expression(value)?;
                    self.put(", ");
                }
                self.put("})");
            }
            _ => return Err(Error::new(ErrorKind::SyntaxError, "a form that is not known here")),
        }
        Ok(())
    }

    /// A chain of one operator, which is read from the left, as one call or one row.
    fn operation(&mut self, op: BinOpKind, expr: &Expr<'_>) -> Written {
        let (open, between) = match op {
            BinOpKind::Concat => ("graft_concat(", ", "),
            BinOpKind::Add => ("graft_add(", ", "),
            BinOpKind::Mul => ("graft_mul(", ", "),
            BinOpKind::ScAnd => ("(", " and "),
            BinOpKind::ScOr => ("(", " or "),
            BinOpKind::Sub => ("(", " - "),
            BinOpKind::Div => ("(", " / "),
            BinOpKind::FloorDiv => ("(", " // "),
            BinOpKind::Rem => ("(", " % "),
            BinOpKind::Pow => ("(", " ** "),
            BinOpKind::Eq => ("(", " == "),
            BinOpKind::Ne => ("(", " != "),
            BinOpKind::Lt => ("(", " < "),
            BinOpKind::Lte => ("(", " <= "),
            BinOpKind::Gt => ("(", " > "),
            BinOpKind::Gte => ("(", " >= "),
            BinOpKind::In => ("(", " in "),
        };
        let chains = !matches!(
            op,
            BinOpKind::Pow
                | BinOpKind::Eq
                | BinOpKind::Ne
                | BinOpKind::Lt
                | BinOpKind::Lte
                | BinOpKind::Gt
                | BinOpKind::Gte
                | BinOpKind::In
        );
        let (mut operands, mut left) = (Vec::new(), expr);
        while let Expr::BinOp(part) = left
            && std::mem::discriminant(&part.op) == std::mem::discriminant(&op)
            && (chains || operands.is_empty())
        {
            operands.push(&part.right);
            left = &part.left;
        }
        operands.push(left);
        self.put(open);
        for (index, operand) in operands.into_iter().rev().enumerate() {
            self.put(if index > 0 { between } else { "" });
            self.seen_if(!chains, operand)?;
        }
        self.put(")");
        Ok(())
    }

    /// A value that is gone through.
    fn seen(&mut self, expr: &Expr<'_>) -> Written {
        self.seen_if(true, expr)
    }

    fn seen_if(&mut self, seen: bool, expr: &Expr<'_>) -> Written {
        self.put(if seen { "graft_see(" } else { "" });
        self.expression(expr)?;
        self.put(if seen { ")" } else { "" });
        Ok(())
    }

    /// What stands before a dot or a bracket.
    fn base(&mut self, expr: &Expr<'_>) -> Written {
        let plain = matches!(expr, Expr::Var(_) | Expr::GetAttr(_) | Expr::GetItem(_));
        self.put(if plain { "" } else { "(" });
        self.expression(expr)?;
        self.put(if plain { "" } else { ")" });
        Ok(())
    }

    /// A filter and what it is applied to, if that is not a block.
    fn filter(&mut self, expr: &Expr<'_>) -> Written {
        let Expr::Filter(part) = expr else { return self.expression(expr) };
        if let Some(subject) = &part.expr {
            let whole = WHOLE.contains(&part.name);
            self.put(if whole { "graft_see(" } else { "graft_see_each(" });
            self.expression(subject)?;
            self.put(")|");
        }
        self.put(part.name);
        if part.args.is_empty() { Ok(()) } else { self.arguments(&part.args) }
    }

    fn call(&mut self, call: &Call<'_>) -> Written {
        match &call.expr {
            Expr::GetAttr(method) => {
                self.seen(&method.expr)?;
                self.put(".");
                self.put(method.name);
            }
            other => self.base(other)?,
        }
        self.arguments(&call.args)
    }

    fn arguments(&mut self, arguments: &[CallArg<'_>]) -> Written {
        self.put("(");
        for (index, argument) in arguments.iter().enumerate() {
            self.put(if index > 0 { ", " } else { "" });
            let value = match argument {
                CallArg::Pos(value) => value,
                CallArg::Kwarg(name, value) => {
                    self.put(name);
                    self.put("=");
                    value
                }
                CallArg::PosSplat(value) => {
                    self.put("*");
                    value
                }
                CallArg::KwargSplat(value) => {
                    self.put("**");
                    value
                }
            };
            self.expression(value)?;
        }
        self.put(")");
        Ok(())
    }

    fn constant(&mut self, value: &Value) -> Written {
        match value.kind() {
            ValueKind::None => self.put("none"),
            ValueKind::Bool => self.put(if value.is_true() { "true" } else { "false" }),
            ValueKind::String => self.text(value.as_str().unwrap_or_default()),
            ValueKind::Number if value.is_integer() => self.put(&value.to_string()),
            ValueKind::Number => match f64::try_from(value.clone()) {
                Ok(number) if number.is_finite() => {
                    let _ = write!(self.out, "{number:?}");
                }
                _ => return Err(Error::new(ErrorKind::SyntaxError, "a number without end")),
            },
            _ => {
                return Err(Error::new(
                    ErrorKind::SyntaxError,
                    "a constant that is not known here",
                ));
            }
        }
        Ok(())
    }

    fn text(&mut self, text: &str) {
        self.out.push('"');
        for character in text.chars() {
            match character {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                other => self.out.push(other),
            }
        }
        self.out.push('"');
    }
}

/// Whether something is put into a namespace.
fn is_stored(target: &Expr<'_>) -> bool {
    match target {
        Expr::GetAttr(_) => true,
        Expr::List(list) => list.items.iter().any(is_stored),
        _ => false,
    }
}

fn is_loop(call: &Call<'_>) -> bool {
    matches!(&call.expr, Expr::Var(name) if name.id == "loop")
}
