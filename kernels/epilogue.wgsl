// What becomes of a product, element `at` of the result: rounded to its dtype, then the epilogue of
// it and the operands e0, e1, … as their strides say. Without an epilogue the store rounds.
//#if $EPILOGUE
//#include expr
//#for I in 0..$EXTRAS
//#include load NAME=e$I DTYPE=${E$I}
//#endfor

$BODY

fn finished(product: f32, at: u32) -> $TYPE {
//#include indices I=at
    return $TYPE(apply(
        f32_to_$PRODUCT(product),
//#for I in 0..$EXTRAS
        load_e$I(p.start$I + i0 * p.s${I}0 + i1 * p.s${I}1 + i2 * p.s${I}2 + i3 * p.s${I}3),
//#endfor
    ));
}
//#else
fn finished(product: f32, at: u32) -> f32 {
    return product;
}
//#endif
