/* What is done to one block of elements of type REAL, for one processor level: vectors of VECTOR_BYTES. BITS is the
 * integer as wide as REAL, HIGH(bits) its upper 32 bits, HIGH_MANTISSA how many of them are mantissa. */

enum { NAME(LANES) = VECTOR_BYTES / sizeof(REAL), NAME(DOUBLES) = VECTOR_BYTES / sizeof(double) };
typedef REAL NAME(reals) __attribute__((vector_size(VECTOR_BYTES)));
typedef BITS NAME(masks) __attribute__((vector_size(VECTOR_BYTES)));
typedef int32_t NAME(codes) __attribute__((vector_size(VECTOR_BYTES / sizeof(REAL) * 4)));
typedef REAL NAME(part) __attribute__((vector_size(VECTOR_BYTES / sizeof(double) * sizeof(REAL))));
typedef double NAME(doubles) __attribute__((vector_size(VECTOR_BYTES)));

#define REALS NAME(reals)
#define MASKS NAME(masks)
#define CODES NAME(codes)
#define CHOOSE(mask, yes, no) (((yes) & (mask)) | ((no) & ~(mask)))

/* The lower and the higher of each pair; the second of the two if the first is NaN. */
static ALWAYS_INLINE REALS NAME(lower)(REALS a, REALS b)
{
#ifdef X86_LEVELS
    return JOIN(INTRINSICS, min, SUFFIX)(a, b);
#else
    return (REALS)CHOOSE(a < b, (MASKS)a, (MASKS)b);
#endif
}

static ALWAYS_INLINE REALS NAME(higher)(REALS a, REALS b)
{
#ifdef X86_LEVELS
    return JOIN(INTRINSICS, max, SUFFIX)(a, b);
#else
    return (REALS)CHOOSE(a > b, (MASKS)a, (MASKS)b);
#endif
}

/* As doubles, half a vector of floats or a vector of doubles. */
static ALWAYS_INLINE NAME(doubles) NAME(as_doubles)(const REAL *x)
{
#ifdef X86_LEVELS
    return TO_DOUBLES(x);
#else
    NAME(part) values;
    memcpy(&values, x, sizeof values);
    return __builtin_convertvector(values, NAME(doubles));
#endif
}

/* What encoding needs of a plan, in vectors that stay in registers. */
struct NAME(constants) {
    REALS smallest, largest, scale, offset, half, top, twice_margin;
    CODES first, beyond, spare;
    int shift;
};

static ALWAYS_INLINE struct NAME(constants) NAME(constants_of)(const struct plan *plan)
{
    const struct axis *axis = plan->axis;
    const REALS none = {0};
    const CODES no_code = {0};
    struct NAME(constants) constants = {
        .smallest = none + (REAL)plan->smallest,
        .largest = none + (REAL)plan->largest,
        .scale = none + (REAL)plan->GUESS.scale,
        .offset = none + (REAL)plan->GUESS.offset,
        .half = none + (REAL)0.5,
        .top = none + (REAL)plan->GUESS.top,
        .twice_margin = none + (REAL)plan->GUESS.twice_margin,
        .first = no_code + (((EXPONENT_BIAS + axis->min_exponent) << axis->bits) - 1),
        .beyond = no_code + (axis->per_sign + 1),
        .shift = HIGH_MANTISSA - axis->bits,
    };
    memcpy(&constants.spare, plan->spares, sizeof constants.spare);
    return constants;
}

/* The codes of a vector of elements on a signed-log axis: a shift of their bits. */
static ALWAYS_INLINE CODES NAME(encode_log)(const struct NAME(constants) *constants, REALS x)
{
    CODES negative = HIGH((MASKS)x) >> 31;
    REALS magnitude = (REALS)((MASKS)x & ~SIGN);
    /* what is too small goes to the innermost bucket, what is too large, and NaN, to the one beyond the outermost */
    magnitude = NAME(higher)(NAME(lower)(magnitude, constants->largest), constants->smallest);
    CODES bucket = (HIGH((MASKS)magnitude) >> constants->shift) - constants->first;
    return constants->beyond + ((bucket ^ negative) - negative);
}

/* The codes of a vector of elements on a linear axis; where rounding could have moved one over an edge, its
 * complement, which is negative: undecided. The offset holds a margin larger than any rounding error, so an undecided
 * value has a fraction below twice that margin, and belongs to the guessed code or to the one before. */
static ALWAYS_INLINE CODES NAME(encode_linear)(const struct NAME(constants) *constants, REALS x, MASKS zero,
                                               MASKS *undecided)
{
    REALS place = x * constants->scale + constants->offset;
    place = NAME(lower)(NAME(higher)(place, constants->half), constants->top); /* NaN goes to underflow */
    CODES code = __builtin_convertvector(place, CODES);
    MASKS unclear = (place - __builtin_convertvector(code, REALS) < constants->twice_margin) & ~zero;
    *undecided |= unclear;
    return code ^ HIGH(unclear);
}

/* Decide codes of a chunk by the edges themselves. Without branches in the search: coarse values (quantised ones) lie
 * on edges often enough to be in the way of each other, and too seldom to be predicted. */
static __attribute__((noinline)) void NAME(decide)(const struct plan *plan, const REAL *x, int32_t *codes)
{
    const double *edges = plan->axis->edges, hi = edges[plan->axis->bins];
    int found = 0;
    int32_t where[CHUNK];
    for (int i = 0; i < CHUNK; ++i) {
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

/* Write the codes of a chunk. */
static ALWAYS_INLINE void NAME(encode)(const struct plan *plan, const struct NAME(constants) *constants, const REAL *x,
                                       int linear, int32_t *codes)
{
    MASKS undecided = {0};
    for (int i = 0; i < CHUNK; i += NAME(LANES)) {
        REALS values;
        CODES code;
        memcpy(&values, x + i, sizeof values);
        MASKS zero = values == 0;
        code = linear ? NAME(encode_linear)(constants, values, zero, &undecided) : NAME(encode_log)(constants, values);
        CODES zero_code = HIGH(zero);
        code = CHOOSE(zero_code, constants->spare, code);
        memcpy(codes + i, &code, sizeof code);
    }
    if (linear) {
        uint64_t parts[VECTOR_BYTES / 8], any = 0;
        memcpy(parts, &undecided, sizeof parts);
        for (int i = 0; i < VECTOR_BYTES / 8; ++i)
            any |= parts[i];
        if (any)
            NAME(decide)(plan, x, codes);
    }
}

/* Sums and extremes of the chunks of a block; two sums side by side, since each waits for its last addition. */
struct NAME(tally) {
    NAME(doubles) sum0, sum1, sum_sq0, sum_sq1;
    REALS low, high;
};

static ALWAYS_INLINE struct NAME(tally) NAME(no_tally)(void)
{
    return (struct NAME(tally)){{0}, {0}, {0}, {0}, (REAL)INFINITY - (REALS){0}, -(REAL)INFINITY - (REALS){0}};
}

static ALWAYS_INLINE void NAME(add_chunk)(struct NAME(tally) *tally, const REAL *x)
{
    for (int i = 0; i < CHUNK; i += 2 * NAME(DOUBLES)) {
        NAME(doubles) first = NAME(as_doubles)(x + i), second = NAME(as_doubles)(x + i + NAME(DOUBLES));
        tally->sum0 += first;
        tally->sum1 += second;
        tally->sum_sq0 += first * first;
        tally->sum_sq1 += second * second;
    }
    for (int i = 0; i < CHUNK; i += NAME(LANES)) {
        REALS values;
        memcpy(&values, x + i, sizeof values);
        tally->low = NAME(lower)(values, tally->low);
        tally->high = NAME(higher)(values, tally->high);
    }
}

/* Add what was tallied to the moments. Return 0, having added nothing, if a NaN or an infinity is in it. */
static ALWAYS_INLINE int NAME(add_tally)(const struct NAME(tally) *tally, struct moments *moments)
{
    NAME(doubles) sums = tally->sum0 + tally->sum1, squares = tally->sum_sq0 + tally->sum_sq1;
    double sum = 0, sum_sq = 0;
    for (int i = 0; i < NAME(DOUBLES); ++i) {
        sum += sums[i];
        sum_sq += squares[i];
    }
    if (!isfinite(sum))
        return 0;
    REAL low = tally->low[0], high = tally->high[0];
    for (int i = 1; i < NAME(LANES); ++i) {
        low = tally->low[i] < low ? tally->low[i] : low;
        high = tally->high[i] > high ? tally->high[i] : high;
    }
    add_exactly(&moments->sum, sum);
    add_exactly(&moments->sum_sq, sum_sq);
    note_extremes(moments, low, high);
    return 1;
}

/* The same for a block with NaN or infinities. */
static __attribute__((noinline)) void NAME(set_apart)(const REAL *x, int n, struct job *job)
{
    double sum = 0, sum_sq = 0;
    REAL low = (REAL)INFINITY, high = -(REAL)INFINITY;
    BITS nan = 0, negative_nan = 0, pos_inf = 0, neg_inf = 0;
    const int linear = job->plan->axis->edges != NULL;
    VECTORISE(reduction(+ : sum, sum_sq, nan, negative_nan, pos_inf, neg_inf) reduction(min : low) reduction(max : high))
    for (int i = 0; i < n; ++i) {
        BITS bits;
        memcpy(&bits, &x[i], sizeof bits);
        BITS magnitude = bits & ~SIGN;
        int finite = magnitude < INFINITE;
        double value = finite ? x[i] : 0;
        nan += magnitude > INFINITE;
        negative_nan += (magnitude > INFINITE) & (bits < 0);
        pos_inf += bits == INFINITE;
        neg_inf += bits == (INFINITE | SIGN);
        sum += value;
        sum_sq += value * value;
        REAL lower = finite ? x[i] : (REAL)INFINITY, higher = finite ? x[i] : -(REAL)INFINITY;
        low = lower < low ? lower : low;
        high = higher > high ? higher : high;
    }
    job->counters.nan += nan;
    job->counters.pos_inf += pos_inf;
    job->counters.neg_inf += neg_inf;
    job->counters.false_under += neg_inf + (linear ? nan : negative_nan);
    job->counters.false_over += pos_inf + (linear ? 0 : nan - negative_nan);
    add_exactly(&job->moments.sum, sum);
    add_exactly(&job->moments.sum_sq, sum_sq);
    note_extremes(&job->moments, low, high);
}

/* Count n elements, whole chunks, of type REAL or of a narrower one. While the codes of a chunk are computed, those of
 * the one before are counted. Return 0, the moments unchanged, if there is a NaN or an infinity. */
static ALWAYS_INLINE int NAME(count_block)(const char *block, int n, enum dtype dtype, int linear, struct job *job)
{
    const struct plan *plan = job->plan;
    const struct NAME(constants) constants = NAME(constants_of)(plan);
    int32_t codes[2][CHUNK] __attribute__((aligned(64)));
    REAL wide[CHUNK] __attribute__((aligned(64)));
    struct NAME(tally) tally = NAME(no_tally)();
    for (int i = 0; i < n; i += CHUNK) {
        const int which = i / CHUNK % 2;
        const REAL *x = NAME(chunk)(block, i, dtype, wide);
        NAME(encode)(plan, &constants, x, linear, codes[which]);
        NAME(add_chunk)(&tally, x);
        if (i)
            scatter(codes[!which], job);
    }
    scatter(codes[(n / CHUNK - 1) % 2], job);
    return NAME(add_tally)(&tally, &job->moments);
}

#undef REALS
#undef MASKS
#undef CODES
#undef CHOOSE
