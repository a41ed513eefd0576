/* Counting on the CPU, in one pass over memory: bins, counters and moments of a tensor.
 *
 * A plain C interface, called by kernel.py; reference.py defines what every count must be. Memory is
 * taken in blocks that stay in the first-level cache. Of each block, vector code writes a code per element
 * (its place in a table) and the moments; then scalar code adds the codes to a few tables side by side, so
 * that equal neighbours do not wait for each other. _kernel_block.h holds what is done to one block; it is
 * compiled once per element type and processor level, and the best level is picked when the library is loaded.
 *
 * Codes: 0 is underflow, 1 ... bins are the bins, bins + 1 is overflow. The SPARE codes behind them take
 * what is counted apart (zeros, of which a ReLU makes so many that they would queue at one counter; NaN;
 * infinities) and are thrown away.
 */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__))
#define X86_LEVELS 1
#include <immintrin.h>
#endif

#ifdef _WIN32
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

/* Loops are vectorised for their own sake; sums may be taken in any order. */
#define PRAGMA(text) _Pragma(#text)
#ifdef _MSC_VER
#define VECTORISE(clauses)
#else
#define VECTORISE(clauses) PRAGMA(omp simd clauses)
#endif

#ifdef __GNUC__
#define PREFETCH(address) __builtin_prefetch(address)
#define ALWAYS_INLINE inline __attribute__((always_inline))
#else
#define PREFETCH(address) ((void)(address))
#define ALWAYS_INLINE __forceinline
#endif

/* The interface that kernel.py expects; raised whenever a signature or a structure changes. */
#ifndef INTERFACE
#define INTERFACE 1
#endif

enum { BLOCK = 2048, TABLES = 4, SPARE = 16, MAX_THREADS = 64, MAX_DIMS = 64 };

/* Choices by arithmetic, of which compilers make better vector code than of conditions. */
#define MASK(condition) (-(int32_t)(condition))
#define CHOOSE(mask, yes, no) ((no) ^ (((no) ^ (yes)) & (mask)))

/* Axes with more bins are counted one by one, lest the tables of all threads fill the memory. */
enum { MAX_TABLE_BINS = 1 << 20 };

/* Tables count in 32 bits; they are emptied before any of their counters could overflow. Tests choose less. */
#ifndef FLUSH_ELEMENTS
#define TABLE_COUNTER uint32_t
#define FLUSH_ELEMENTS (INT64_C(1) << 31)
#endif
typedef TABLE_COUNTER table_counter;

enum dtype { FLOAT32, FLOAT64, BFLOAT16, FLOAT16 };

/* Positions of the counters behind the bins of a row, and of its moments. */
enum { UNDER, OVER, NOT_A_NUMBER, POS_INF, NEG_INF, ZEROS, SIZE };
enum { SUM, SUM_SQ, MINIMUM, MAXIMUM };

/* Filled in by kernel.py. `edges` is NULL for a signed-log axis, else bins + 1 ascending values. */
struct axis {
    int64_t bins;
    const double *edges;
    int32_t bits;
    int32_t min_exponent;
    int32_t per_sign;
};

/* What a linear axis needs to guess the bin of a value; see encode_linear. */
struct guess {
    double scale, offset, twice_margin, top;
};

/* What is the same for all elements of one call. */
struct plan {
    const struct axis *axis;
    struct guess guess32, guess64;
    double scale;      /* bins per unit of value */
    int64_t zero_code; /* where zeros belong */
    int spare;         /* first of the SPARE codes */
};

/* The elements of a tensor: strides in elements, the last dimension innermost, at least one dimension. */
struct source {
    const char *data;
    enum dtype dtype;
    int itemsize;
    int dims;
    const int64_t *sizes, *strides;
};

struct counters {
    int64_t nan, pos_inf, neg_inf, zeros;
};

/* A sum whose rounding errors are carried along, so that billions of blocks add up to a float64's precision. */
struct exact_sum {
    double total, carry;
};

struct moments {
    struct exact_sum sum, sum_sq;
    double min, max;
};

/* The share of one thread, and what it found. */
struct job {
    const struct plan *plan;
    const struct source *source;
    int64_t begin, end;
    int64_t *counts; /* by code */
    table_counter *tables;
    struct counters counters;
    struct moments moments;
    char padding[64]; /* jobs of different threads share no cache line */
};

static void add_exactly(struct exact_sum *sum, double value)
{
    double total = sum->total + value;
    double part = total - sum->total;
    if (isfinite(total)) /* squares of float64 values may overflow; infinity has no rounding error */
        sum->carry += (sum->total - (total - part)) + (value - part);
    sum->total = total;
}

static double total_of(const struct exact_sum *sum)
{
    return isfinite(sum->total) ? sum->total + sum->carry : sum->total;
}

static void note_extremes(struct moments *moments, double low, double high)
{
    if (low < moments->min)
        moments->min = low;
    if (high > moments->max)
        moments->max = high;
}

/* ---- one element: the definition, and the way for what is too small or too odd for vectors ------------- */

/* Inlined, so that it is compiled for the level of its caller: a processor changes between old and new vector
 * registers at the cost of a hundred cycles. */
static ALWAYS_INLINE int64_t code_linear(const struct plan *plan, double x)
{
    const double *edges = plan->axis->edges;
    int64_t bins = plan->axis->bins;
    if (!(x >= edges[0]))
        return 0;
    if (x >= edges[bins])
        return x > edges[bins] ? bins + 1 : bins; /* the right edge lies inside the last bin */
    double guess = (x - edges[0]) * plan->scale;
    int64_t bin = guess < (double)bins ? (int64_t)guess : bins - 1;
    while (x < edges[bin])
        --bin;
    while (x >= edges[bin + 1])
        ++bin;
    return bin + 1;
}

static int64_t code_log(const struct plan *plan, double x)
{
    const struct axis *axis = plan->axis;
    int64_t pattern, bucket;
    memcpy(&pattern, &x, sizeof pattern);
    bucket = ((pattern & INT64_MAX) >> (52 - axis->bits)) - ((int64_t)(1023 + axis->min_exponent) << axis->bits);
    bucket = bucket < 0 ? 0 : bucket > axis->per_sign ? axis->per_sign : bucket;
    return axis->per_sign + 1 + (pattern < 0 ? -1 - bucket : 1 + bucket);
}

static int64_t code_of(const struct plan *plan, double x)
{
    if (x == 0)
        return plan->zero_code;
    return plan->axis->edges ? code_linear(plan, x) : code_log(plan, x);
}

/* Count a value that occurred `times` times, except for its bin. Return its code, or -1 if it is NaN or infinite. */
static int64_t note_value(const struct plan *plan, double x, int64_t times, struct job *job)
{
    if (isnan(x)) {
        job->counters.nan += times;
        return -1;
    }
    if (isinf(x)) {
        *(x > 0 ? &job->counters.pos_inf : &job->counters.neg_inf) += times;
        return -1;
    }
    job->counters.zeros += x == 0 ? times : 0;
    add_exactly(&job->moments.sum, x * (double)times);
    add_exactly(&job->moments.sum_sq, x * x * (double)times);
    note_extremes(&job->moments, x, x);
    return code_of(plan, x);
}

/* Where a row counts a code. */
static int64_t *counter_of(int64_t *row, int64_t bins, int64_t code)
{
    return row + (code == 0 ? bins + UNDER : code > bins ? bins + OVER : code - 1);
}

static float float_of_bits(uint32_t pattern)
{
    float x;
    memcpy(&x, &pattern, sizeof x);
    return x;
}

/* A float16 by its bits. Multiplying shifts the exponent, for subnormals too; 31 stands for infinity and NaN. */
static uint32_t widen_half(uint16_t half)
{
    uint32_t magnitude = (uint32_t)(half & 0x7fff) << 13, pattern;
    float shifted = float_of_bits(magnitude) * 0x1p112f;
    memcpy(&pattern, &shifted, sizeof pattern);
    pattern |= (half & 0x7c00) == 0x7c00 ? UINT32_C(0x7f800000) : 0;
    return pattern | (uint32_t)(half & 0x8000) << 16;
}

static double value_of_half(uint16_t half, enum dtype dtype)
{
    return float_of_bits(dtype == BFLOAT16 ? (uint32_t)half << 16 : widen_half(half));
}

static double load(const char *address, enum dtype dtype)
{
    uint16_t half;
    float single;
    double real;
    switch (dtype) {
    case FLOAT32:
        memcpy(&single, address, sizeof single);
        return single;
    case FLOAT64:
        memcpy(&real, address, sizeof real);
        return real;
    default:
        memcpy(&half, address, sizeof half);
        return value_of_half(half, dtype);
    }
}

/* ---- where the elements lie ---------------------------------------------------------------------------- */

/* A place in a tensor: the indices of its dimensions and the address they lead to. */
struct cursor {
    const struct source *source;
    const char *address;
    int64_t index[MAX_DIMS];
};

static void place_cursor(struct cursor *cursor, const struct source *source, int64_t position)
{
    cursor->source = source;
    cursor->address = source->data;
    for (int d = source->dims - 1; d >= 0; --d) {
        cursor->index[d] = position % source->sizes[d];
        position /= source->sizes[d];
        cursor->address += cursor->index[d] * source->strides[d] * source->itemsize;
    }
}

/* Move on within the innermost dimension, and to the next run at its end. */
static void advance_cursor(struct cursor *cursor, int64_t n)
{
    const struct source *source = cursor->source;
    int d = source->dims - 1;
    cursor->index[d] += n;
    cursor->address += n * source->strides[d] * source->itemsize;
    for (; d > 0 && cursor->index[d] == source->sizes[d]; --d) {
        cursor->address += (source->strides[d - 1] - source->sizes[d] * source->strides[d]) * source->itemsize;
        cursor->index[d] = 0;
        ++cursor->index[d - 1];
    }
}

static int64_t left_in_run(const struct cursor *cursor)
{
    int d = cursor->source->dims - 1;
    return cursor->source->sizes[d] - cursor->index[d];
}

#define COPY_RUN(type)                                                         \
    for (int64_t i = 0; i < n; ++i)                                            \
        memcpy(to + i * (int64_t)sizeof(type), from + i * step * (int64_t)sizeof(type), sizeof(type));

static void copy_run(char *to, const char *from, int64_t n, int64_t step, int itemsize)
{
    if (step == 1)
        memcpy(to, from, (size_t)(n * itemsize));
    else if (itemsize == 2)
        COPY_RUN(uint16_t)
    else if (itemsize == 4)
        COPY_RUN(uint32_t)
    else
        COPY_RUN(uint64_t)
}

/* Return where the next n elements lie one after the other: in place if they do, else copied to `buffer`. */
static const char *next_block(struct cursor *cursor, int64_t n, char *buffer)
{
    const struct source *source = cursor->source;
    int64_t step = source->strides[source->dims - 1];
    if (step == 1 && left_in_run(cursor) >= n) {
        const char *address = cursor->address;
        advance_cursor(cursor, n);
        return address;
    }
    for (int64_t done = 0; done < n;) {
        int64_t part = left_in_run(cursor) < n - done ? left_in_run(cursor) : n - done;
        copy_run(buffer + done * source->itemsize, cursor->address, part, step, source->itemsize);
        advance_cursor(cursor, part);
        done += part;
    }
    return buffer;
}

/* ---- tables -------------------------------------------------------------------------------------------- */

/* The distance of two tables: not a multiple of 4096 bytes, which would make a processor mistake one for the other. */
static size_t table_width(const struct plan *plan)
{
    size_t width = (size_t)plan->spare + SPARE;
    return width % 1024 < 32 ? width + 32 : width;
}

/* Add codes to the tables, and ask for the memory of the next block meanwhile. */
static void scatter(const int32_t *codes, int n, table_counter *tables, size_t width, const char *next, int itemsize)
{
    table_counter *t0 = tables, *t1 = t0 + width, *t2 = t1 + width, *t3 = t2 + width;
    int i = 0;
    for (; i + 16 <= n; i += 16) {
        if (next) {
            PREFETCH(next + i * itemsize);
            if (itemsize == 8)
                PREFETCH(next + i * itemsize + 64);
        }
        for (int j = 0; j < 16; j += 4) {
            uint64_t pair, other;
            memcpy(&pair, codes + i + j, sizeof pair);
            memcpy(&other, codes + i + j + 2, sizeof other);
            ++t0[(uint32_t)pair];
            ++t1[pair >> 32];
            ++t2[(uint32_t)other];
            ++t3[other >> 32];
        }
    }
    for (; i < n; ++i)
        ++t0[codes[i]];
}

/* Add the tables to the counts and clear them. */
static void fold_tables(const struct plan *plan, table_counter *tables, int64_t *counts)
{
    size_t width = table_width(plan);
    const table_counter *t0 = tables, *t1 = t0 + width, *t2 = t1 + width, *t3 = t2 + width;
    for (int64_t code = 0; code < plan->axis->bins + 2; ++code)
        counts[code] += (int64_t)t0[code] + t1[code] + t2[code] + t3[code];
    memset(tables, 0, TABLES * width * sizeof *tables);
}

/* ---- many numbers of 16 bits ------------------------------------------------------------------------------ */

/* Of so many elements the patterns of bits are counted, and only each of these 65,536 is looked at. */
#ifndef PATTERNS_FROM
#define PATTERNS_FROM (INT64_C(1) << 20)
#endif

enum { PATTERNS = 1 << 16, PATTERN_TABLES = 2 };

static void fold_patterns(struct job *job)
{
    const table_counter *t0 = job->tables, *t1 = t0 + PATTERNS;
    for (int pattern = 0; pattern < PATTERNS; ++pattern) {
        int64_t times = (int64_t)t0[pattern] + t1[pattern];
        if (!times)
            continue;
        double x = value_of_half((uint16_t)pattern, job->source->dtype);
        int64_t code = note_value(job->plan, x, times, job);
        if (code >= 0 && x != 0) /* zeros are added with their counter */
            job->counts[code] += times;
    }
    memset(job->tables, 0, PATTERN_TABLES * PATTERNS * sizeof *job->tables);
}

/* Count the elements begin ... end - 1 of a job; its counts hold them afterwards. */
static void count_patterns(struct job *job)
{
    table_counter *t0 = job->tables, *t1 = t0 + PATTERNS;
    uint16_t copied[BLOCK];
    struct cursor cursor;
    place_cursor(&cursor, job->source, job->begin);
    int64_t unfolded = 0;
    for (int64_t at = job->begin; at < job->end; at += BLOCK) {
        int n = job->end - at < BLOCK ? (int)(job->end - at) : BLOCK, i = 0;
        const char *block = next_block(&cursor, n, (char *)copied);
        for (; i + 4 <= n; i += 4) {
            uint64_t four;
            memcpy(&four, block + i * 2, sizeof four);
            ++t0[four & 0xffff];
            ++t1[four >> 16 & 0xffff];
            ++t0[four >> 32 & 0xffff];
            ++t1[four >> 48];
        }
        for (; i < n; ++i) {
            uint16_t half;
            memcpy(&half, block + i * 2, sizeof half);
            ++t0[half];
        }
        unfolded += n;
        if (unfolded >= FLUSH_ELEMENTS / 2) {
            fold_patterns(job);
            unfolded = 0;
        }
    }
    fold_patterns(job);
}

/* ---- blocks, per element type and processor level -------------------------------------------------------- */

#define JOIN3(a, b, c) a##_##b##_##c
#define JOIN(a, b, c) JOIN3(a, b, c)
#define NAME(name) JOIN(name, REAL, LEVEL)

#define LEVEL baseline
#include "_kernel_level.h"
#undef LEVEL

#ifdef X86_LEVELS

#define LEVEL_HAS_F16C

#define LEVEL avx2
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif
#include "_kernel_level.h"
#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#undef LEVEL

#define LEVEL avx512
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512")
#endif
#include "_kernel_level.h"
#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#undef LEVEL

#endif

typedef void count_range(struct job *job);

static count_range *const levels[] = {
    count_range_level_baseline,
#ifdef X86_LEVELS
    count_range_level_avx2,
    count_range_level_avx512,
#endif
};

/* Number of the best processor level that runs here: 0 baseline, 1 AVX2, 2 AVX-512. */
EXPORT int colordim_best_level(void)
{
#ifdef X86_LEVELS
    __builtin_cpu_init();
    /* Every processor with both of these has F16C too, a name that GCC before 11 does not know here. */
    if (!(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")))
        return 0;
    if (!(__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
          __builtin_cpu_supports("avx512vl")))
        return 1;
    return 2;
#else
    return 0;
#endif
}

/* ---- threads ------------------------------------------------------------------------------------------- */

/* Subnormals are values like others: they are not flushed to zero here, whatever the caller has set. */
#if defined(X86_LEVELS)
typedef unsigned int float_mode;

static float_mode keep_subnormals(void)
{
    float_mode mode = _mm_getcsr();
    _mm_setcsr(mode & ~0x8040u); /* flush to zero, denormals are zero */
    return mode;
}

static void restore_float_mode(float_mode mode)
{
    _mm_setcsr(mode);
}
#elif defined(__aarch64__) && defined(__GNUC__)
typedef uint64_t float_mode;

static void restore_float_mode(float_mode mode)
{
    __asm__ volatile("msr fpcr, %0" : : "r"(mode));
}

static float_mode keep_subnormals(void)
{
    float_mode mode;
    __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
    restore_float_mode(mode & ~(UINT64_C(1) << 24));
    return mode;
}
#else
typedef int float_mode;

static float_mode keep_subnormals(void)
{
    return 0;
}

static void restore_float_mode(float_mode mode)
{
    (void)mode;
}
#endif

/* Runs a function in several threads at once: GOMP_parallel of the OpenMP library that torch itself uses, given by
 * kernel.py, so that there is one pool of threads and not two that fight. */
typedef void run_in_threads(void (*function)(void *), void *data, unsigned threads, unsigned flags);

struct team {
    count_range *count;
    struct job *jobs;
    int size, taken;
};

static void work(void *data)
{
    struct team *team = data;
    float_mode mode = keep_subnormals();
    for (;;) {
#ifdef __GNUC__
        int mine = __atomic_fetch_add(&team->taken, 1, __ATOMIC_RELAXED);
#else
        int mine = team->taken++; /* only one thread where there is no GOMP_parallel */
#endif
        if (mine >= team->size)
            break;
        team->count(&team->jobs[mine]);
    }
    restore_float_mode(mode);
}

/* ---- one call ------------------------------------------------------------------------------------------ */

/* Rounding of the guess x * scale + offset is a few times `epsilon` of its largest term. */
static struct guess guess_for(const struct axis *axis, double scale, double epsilon, double smallest, double largest)
{
    double lo = axis->edges[0], hi = axis->edges[axis->bins];
    double reach = fmax(fabs(lo), fabs(hi)), margin = 16 * epsilon * reach * scale;
    struct guess guess = {0, 1, 2, 1}; /* nothing is decided */
    if (margin < 0.125 && scale > smallest && scale < largest && reach < largest) {
        guess.scale = scale;
        guess.offset = 1 + margin - lo * scale;
        guess.twice_margin = 2 * margin;
        guess.top = (double)axis->bins + 1.5;
    }
    return guess;
}

static struct plan plan_for(const struct axis *axis)
{
    struct plan plan = {.axis = axis, .spare = (int)(axis->bins + 2), .zero_code = axis->per_sign + 1};
    if (axis->edges) {
        plan.scale = (double)axis->bins / (axis->edges[axis->bins] - axis->edges[0]);
        plan.guess32 = guess_for(axis, plan.scale, 0x1p-24, 1e-30, 1e30);
        plan.guess64 = guess_for(axis, plan.scale, 0x1p-53, 1e-290, 1e290);
        plan.zero_code = code_linear(&plan, 0);
    }
    return plan;
}

static void start_job(struct job *job, const struct plan *plan, const struct source *source)
{
    memset(job, 0, sizeof *job);
    job->plan = plan;
    job->source = source;
    job->moments.min = INFINITY;
    job->moments.max = -INFINITY;
}

/* Add what a job found to the row. */
static void finish_job(const struct job *job, int64_t *row, double *moments)
{
    const struct plan *plan = job->plan;
    int64_t bins = plan->axis->bins;
    row[bins + NOT_A_NUMBER] += job->counters.nan;
    row[bins + POS_INF] += job->counters.pos_inf;
    row[bins + NEG_INF] += job->counters.neg_inf;
    row[bins + ZEROS] += job->counters.zeros;
    row[bins + SIZE] += job->end - job->begin;
    moments[SUM] += total_of(&job->moments.sum);
    moments[SUM_SQ] += total_of(&job->moments.sum_sq);
    moments[MINIMUM] = fmin(moments[MINIMUM], job->moments.min);
    moments[MAXIMUM] = fmax(moments[MAXIMUM], job->moments.max);
    if (!job->counts)
        return;
    for (int64_t bin = 0; bin < bins; ++bin)
        row[bin] += job->counts[bin + 1];
    row[bins + UNDER] += job->counts[0];
    row[bins + OVER] += job->counts[bins + 1];
    *counter_of(row, bins, plan->zero_code) += job->counters.zeros;
}

/* Count one by one: few elements, for which tables do not pay, or an axis with more bins than codes. */
static void count_singly(struct job *job, int64_t *row)
{
    struct cursor cursor;
    float_mode mode = keep_subnormals();
    place_cursor(&cursor, job->source, job->begin);
    for (int64_t at = job->begin; at < job->end; ++at) {
        int64_t code = note_value(job->plan, load(cursor.address, job->source->dtype), 1, job);
        if (code >= 0)
            ++*counter_of(row, job->plan->axis->bins, code);
        advance_cursor(&cursor, 1);
    }
    restore_float_mode(mode);
}

/* Count in `threads` equal shares of whole blocks. Return 0, the row unchanged, if there is no memory. */
static int count_in_blocks(const struct plan *plan, const struct source *source, int64_t n, int level, int threads,
                           run_in_threads *run, int64_t *row, double *moments)
{
    struct job jobs[MAX_THREADS];
    int64_t share = (n + threads - 1) / threads;
    share = (share + BLOCK - 1) / BLOCK * BLOCK;
    int by_pattern = source->itemsize == 2 && n / threads >= PATTERNS_FROM;
    size_t codes = (size_t)plan->axis->bins + 2;
    size_t tables = by_pattern ? PATTERN_TABLES * PATTERNS : TABLES * table_width(plan);
    size_t bytes = (codes * sizeof(int64_t) + tables * sizeof(table_counter) + 63) / 64 * 64;
    char *memory = calloc((size_t)threads, bytes);
    if (!memory)
        return 0;
    struct team team = {by_pattern ? count_patterns : levels[level], jobs, 0, 0};
    for (int64_t begin = 0; begin < n; begin += share) {
        struct job *job = &jobs[team.size];
        start_job(job, plan, source);
        job->begin = begin;
        job->end = n - begin < share ? n : begin + share;
        job->counts = (int64_t *)(memory + (size_t)team.size * bytes);
        job->tables = (table_counter *)(job->counts + codes);
        ++team.size;
    }
    if (run && team.size > 1)
        run(work, &team, (unsigned)team.size, 0);
    else
        work(&team);
    for (int i = 0; i < team.size; ++i)
        finish_job(&jobs[i], row, moments);
    free(memory);
    return 1;
}

static const int itemsizes[] = {4, 8, 2, 2};

static int count(const struct axis *axis, const struct source *source, int64_t n, int level, int threads,
                 run_in_threads *run, int64_t *row, double *moments)
{
    struct plan plan = plan_for(axis);
    if (n <= 64 || n <= axis->bins / 16 || axis->bins > MAX_TABLE_BINS) {
        struct job job;
        start_job(&job, &plan, source);
        job.end = n;
        count_singly(&job, row);
        finish_job(&job, row, moments);
        return 1;
    }
    threads = threads < 1 ? 1 : threads > MAX_THREADS ? MAX_THREADS : threads;
    return count_in_blocks(&plan, source, n, level, threads, run, row, moments);
}

/* The interface version, to tell a library that was left over from another version. */
EXPORT int colordim_interface(void)
{
    return INTERFACE;
}

/* Count n elements that lie one after the other. */
EXPORT int colordim_count(const struct axis *axis, const char *data, int64_t n, int dtype, int level, int threads,
                          run_in_threads *run, int64_t *row, double *moments)
{
    static const int64_t one = 1;
    struct source source = {data, (enum dtype)dtype, itemsizes[dtype], 1, &n, &one};
    return count(axis, &source, n, level, threads, run, row, moments);
}

/* Count the elements of `dims` dimensions (1 to MAX_DIMS), none of them empty; strides in elements. */
EXPORT int colordim_count_strided(const struct axis *axis, const char *data, int dims, const int64_t *sizes,
                                  const int64_t *strides, int dtype, int level, int threads, run_in_threads *run,
                                  int64_t *row, double *moments)
{
    struct source source = {data, (enum dtype)dtype, itemsizes[dtype], dims, sizes, strides};
    int64_t n = 1;
    for (int d = 0; d < dims; ++d)
        n *= sizes[d];
    return count(axis, &source, n, level, threads, run, row, moments);
}
