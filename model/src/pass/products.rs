//! Results of a branch's products under their names: with them a branch can be put on a tape without
//! multiplying again.

use std::fmt;

use burn::tensor::ops::FloatTensor;
use graft_kernels::Kernels;

use crate::site::ProjectionKind;

/// What a branch computes and wants again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Product {
    /// The product of a projection.
    Output(ProjectionKind),
    /// What a projection computes beside it, under the projection's own name for it.
    Beside(ProjectionKind, &'static str),
    /// What attention gives.
    Attention,
    /// The log-sum-exp of attention's rows.
    LogSumExp,
}

impl fmt::Display for Product {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Output(kind) => write!(formatter, "the output of {kind}"),
            Self::Beside(kind, name) => write!(formatter, "`{name}` of {kind}"),
            Self::Attention => formatter.write_str("the output of attention"),
            Self::LogSumExp => formatter.write_str("the log-sum-exp of attention"),
        }
    }
}

/// Results of a branch's products, each of which is kept once and taken once.
#[derive(Clone, Debug)]
pub struct Products<B: Kernels>(Vec<(Product, FloatTensor<B>)>);

impl<B: Kernels> Products<B> {
    /// Nothing kept yet.
    pub(super) fn none() -> Self {
        Self(Vec::new())
    }

    /// Keeps what a product gave.
    ///
    /// # Panics
    /// It is kept already: one name stands for two products.
    pub(super) fn keep(&mut self, product: Product, tensor: &FloatTensor<B>) {
        assert!(self.place(product).is_none(), "{product} is kept twice");
        self.0.push((product, tensor.clone()));
    }

    /// Gives what a product gave.
    ///
    /// # Panics
    /// It was not kept, or is taken already: the branch runs another way than before.
    pub(super) fn take(&mut self, product: Product) -> FloatTensor<B> {
        let place = self.place(product);
        let place = place.unwrap_or_else(|| panic!("{product} was not kept; there is {self}"));
        self.0.remove(place).1
    }

    /// Ends the taking.
    ///
    /// # Panics
    /// Something is left: the branch runs another way than before.
    pub(super) fn finish(self) {
        assert!(self.0.is_empty(), "nobody asked for {self}, which was kept");
    }

    fn place(&self, product: Product) -> Option<usize> {
        self.0.iter().position(|(kept, _)| *kept == product)
    }
}

impl<B: Kernels> fmt::Display for Products<B> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return formatter.write_str("nothing");
        }
        for (i, (product, _)) in self.0.iter().enumerate() {
            write!(formatter, "{}{product}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use burn::tensor::ops::FloatTensorOps;
    use burn::tensor::{FloatDType, TensorMetadata};
    use burn_flex::Flex;

    use super::*;

    const LOW: Product = Product::Beside(ProjectionKind::O, "low");

    fn rows(rows: usize) -> FloatTensor<Flex> {
        <Flex as FloatTensorOps<Flex>>::float_zeros(
            [rows, 1].into(),
            &Default::default(),
            FloatDType::F32,
        )
    }

    /// The output of q_proj has one row, attention two, `low` three.
    fn kept() -> Products<Flex> {
        let mut products = Products::none();
        let all = [Product::Output(ProjectionKind::Q), Product::Attention, LOW];
        for (product, len) in all.into_iter().zip(1..) {
            products.keep(product, &rows(len));
        }
        products
    }

    fn message<T>(run: impl FnOnce() -> T) -> String {
        let Err(said) = catch_unwind(AssertUnwindSafe(run)) else { panic!("nothing was wrong") };
        *said.downcast::<String>().expect("a message with values")
    }

    #[test]
    fn products_are_taken_by_name_in_any_order() {
        let mut products = kept();
        for (product, len) in [(LOW, 3), (Product::Output(ProjectionKind::Q), 1)] {
            assert_eq!(products.take(product).shape()[0], len, "{product}");
        }
        assert_eq!(products.take(Product::Attention).shape()[0], 2);
        products.finish();
    }

    #[test]
    fn a_branch_that_runs_another_way_is_told_which_product_is_not_there() {
        let no_such = message(|| kept().take(Product::Output(ProjectionKind::K)));
        insta::assert_snapshot!(no_such, @"the output of k_proj was not kept; there is the output of q_proj, the output of attention, `low` of o_proj");
        let taken = message(|| {
            let mut products = kept();
            (products.take(LOW), products.take(LOW))
        });
        insta::assert_snapshot!(taken, @"`low` of o_proj was not kept; there is the output of q_proj, the output of attention");
        let left = message(|| {
            let mut products = kept();
            let _ = products.take(Product::Attention);
            products.finish();
        });
        insta::assert_snapshot!(left, @"nobody asked for the output of q_proj, `low` of o_proj, which was kept");
        insta::assert_snapshot!(message(|| kept().keep(LOW, &rows(1))), @"`low` of o_proj is kept twice");
        insta::assert_snapshot!(message(|| Products::<Flex>::none().take(Product::LogSumExp)), @"the log-sum-exp of attention was not kept; there is nothing");
    }
}
