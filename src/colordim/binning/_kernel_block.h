/* What is done to one block of elements of type REAL, for one processor level: loops that compilers vectorise.
 * BITS is the integer as wide as REAL, HIGH(bits) its upper 32 bits, HIGH_MANTISSA how many of them are mantissa. */

/* Write the code of each element on a signed-log axis: a shift of its bits. Return how many are zero, of either sign. */
static int64_t NAME(encode_log)(const struct plan *plan, const REAL *x, int n, int32_t *codes)
{
    const struct axis *axis = plan->axis;
    const int shift = HIGH_MANTISSA - axis->bits;
    const int32_t first = ((EXPONENT_BIAS + axis->min_exponent) << axis->bits) - 1;
    const int32_t beyond = axis->per_sign + 1, spare = plan->spare;
    int32_t zeros = 0;
    VECTORISE(reduction(+ : zeros))
    for (int i = 0; i < n; ++i) {
        BITS bits;
        memcpy(&bits, &x[i], sizeof bits);
        int32_t high = HIGH(bits), negative = high >> 31;
        int32_t bucket = ((high & INT32_MAX) >> shift) - first;
        bucket = bucket < 1 ? 1 : bucket; /* what is smaller goes to the innermost bucket */
        bucket = bucket > beyond ? beyond : bucket;
        int32_t code = beyond + ((bucket ^ negative) - negative);
        int32_t zero = MASK((bits & ~SIGN) == 0);
        zeros -= zero;
        codes[i] = CHOOSE(zero, spare + i % SPARE, code);
    }
    return zeros;
}

/* Write the code of each element on a linear axis; where rounding could have moved it over an edge, its complement,
 * which is negative: undecided. The offset holds a margin larger than any rounding error, so an undecided value has a
 * fraction below twice that margin, and belongs to the guessed code or to the one before. Return how many elements
 * are zero, of either sign. */
static int64_t NAME(encode_linear)(const struct plan *plan, const REAL *x, int n, int32_t *codes, int *undecided)
{
    const struct guess *guess = &plan->GUESS;
    const REAL scale = (REAL)guess->scale, offset = (REAL)guess->offset, top = (REAL)guess->top;
    const REAL twice_margin = (REAL)guess->twice_margin;
    const int32_t spare = plan->spare;
    int32_t zeros = 0, unclear_ones = 0;
    VECTORISE(reduction(+ : zeros, unclear_ones))
    for (int i = 0; i < n; ++i) {
        BITS bits;
        memcpy(&bits, &x[i], sizeof bits);
        REAL place = x[i] * scale + offset;
        place = place > (REAL)0.5 ? place : (REAL)0.5; /* NaN too */
        place = place < top ? place : top;
        int32_t code = (int32_t)place;
        int32_t zero = MASK((bits & ~SIGN) == 0);
        int32_t unclear = MASK(place - (REAL)code < twice_margin) & ~zero;
        unclear_ones -= unclear;
        zeros -= zero;
        code ^= unclear;
        codes[i] = CHOOSE(zero, spare + i % SPARE, code);
    }
    *undecided = unclear_ones;
    return zeros;
}

/* Decide codes start ... end - 1 by the edges themselves. Without branches in the search: coarse values (bfloat16,
 * quantised) lie on edges often enough to be in the way of each other, and too seldom to be predicted. */
static void NAME(decide_among)(const struct plan *plan, const REAL *x, int start, int end, int32_t *codes)
{
    const double *edges = plan->axis->edges, hi = edges[plan->axis->bins];
    int found = 0;
    int32_t where[BLOCK];
    for (int i = start; i < end; ++i) {
        where[found] = i;
        found += codes[i] < 0;
    }
    if (!plan->GUESS.scale) /* bins too narrow for any guess */
        for (int i = 0; i < found; ++i)
            codes[where[i]] = (int32_t)code_linear(plan, x[where[i]]);
    else
        for (int i = 0; i < found; ++i) {
            double value = x[where[i]];
            int32_t code = ~codes[where[i]];
            codes[where[i]] = code - ((value < edges[code - 1]) | (value == hi));
        }
}

static void NAME(decide)(const struct plan *plan, const REAL *x, int n, int32_t *codes, int undecided)
{
    enum { GROUP = 64 };
    if (undecided > n / GROUP) {
        NAME(decide_among)(plan, x, 0, n, codes);
        return;
    }
    for (int start = 0; start < n; start += GROUP) {
        int end = n - start < GROUP ? n : start + GROUP, any = 0;
        for (int i = start; i < end; ++i)
            any |= codes[i] < 0;
        if (any)
            NAME(decide_among)(plan, x, start, end, codes);
    }
}

/* A value's place in the order of all values: its bits, with those of negative values turned round. */
static inline BITS NAME(rank)(BITS bits)
{
    return bits ^ ((bits >> (sizeof bits * 8 - 1)) & ~SIGN);
}

static double NAME(value_of_rank)(BITS rank)
{
    BITS bits = NAME(rank)(rank);
    REAL x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Add the moments of a block. Return 0, having added nothing, if it holds a NaN or an infinity. */
static int NAME(add_moments)(const REAL *x, int n, struct moments *moments)
{
    double sum = 0, sum_sq = 0;
    BITS low = ~SIGN, high = SIGN;
    VECTORISE(reduction(+ : sum, sum_sq) reduction(min : low) reduction(max : high))
    for (int i = 0; i < n; ++i) {
        BITS bits;
        memcpy(&bits, &x[i], sizeof bits);
        BITS rank = NAME(rank)(bits);
        double value = x[i];
        sum += value;
        sum_sq += value * value;
        low = low < rank ? low : rank;
        high = high > rank ? high : rank;
    }
    if (high >= INFINITE || low <= NAME(rank)(INFINITE | SIGN))
        return 0;
    add_exactly(&moments->sum, sum);
    add_exactly(&moments->sum_sq, sum_sq);
    note_extremes(moments, NAME(value_of_rank)(low), NAME(value_of_rank)(high));
    return 1;
}

/* The same for a block with NaN or infinities, which are counted apart and get spare codes. */
static void NAME(set_apart)(const struct plan *plan, const REAL *x, int n, int32_t *codes, struct job *job)
{
    const int32_t spare = plan->spare;
    double sum = 0, sum_sq = 0;
    BITS low = ~SIGN, high = SIGN;
    int32_t nan = 0, pos_inf = 0, neg_inf = 0;
    VECTORISE(reduction(+ : sum, sum_sq, nan, pos_inf, neg_inf) reduction(min : low) reduction(max : high))
    for (int i = 0; i < n; ++i) {
        BITS bits;
        memcpy(&bits, &x[i], sizeof bits);
        BITS magnitude = bits & ~SIGN, rank = NAME(rank)(bits);
        int32_t finite = magnitude < INFINITE;
        double value = finite ? x[i] : 0;
        nan += magnitude > INFINITE;
        pos_inf += bits == INFINITE;
        neg_inf += bits == (INFINITE | SIGN);
        sum += value;
        sum_sq += value * value;
        BITS lower = finite ? rank : ~SIGN, higher = finite ? rank : SIGN;
        low = low < lower ? low : lower;
        high = high > higher ? high : higher;
        codes[i] = finite ? codes[i] : spare + i % SPARE;
    }
    job->counters.nan += nan;
    job->counters.pos_inf += pos_inf;
    job->counters.neg_inf += neg_inf;
    add_exactly(&job->moments.sum, sum);
    add_exactly(&job->moments.sum_sq, sum_sq);
    if (nan + pos_inf + neg_inf < n)
        note_extremes(&job->moments, NAME(value_of_rank)(low), NAME(value_of_rank)(high));
}

/* Count one block, except for adding its codes to the tables. */
static void NAME(encode)(const struct plan *plan, const REAL *x, int n, int32_t *codes, struct job *job)
{
    if (plan->axis->edges) {
        int undecided;
        job->counters.zeros += NAME(encode_linear)(plan, x, n, codes, &undecided);
        if (undecided)
            NAME(decide)(plan, x, n, codes, undecided);
    } else {
        job->counters.zeros += NAME(encode_log)(plan, x, n, codes);
    }
    if (!NAME(add_moments)(x, n, &job->moments))
        NAME(set_apart)(plan, x, n, codes, job);
}
