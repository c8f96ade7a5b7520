/* Makes the n-th call of a stand-in's functions fail. runtime.cpp and cublaslt_stand_in.cpp have one counter each, which
 * tests set by exported functions (tests/sweeps/device_faults.py). */
#ifndef FAULTS_H
#define FAULTS_H

#include <stddef.h>

#include <mutex>
#include <vector>

namespace emu
{

class faults
{
  public:
    enum mode { ONCE, FOR_EVER, STICKY }; /* STICKY: for ever, and the error is never cleared */

    /* Counts calls from now on: call n fails with the error. n 0: none does. */
    void arm(long n, int error, int how)
    {
        std::lock_guard<std::mutex> guard(mutex);
        first = (size_t)n;
        with = error;
        mode_ = (mode)how;
        functions.clear();
    }

    /* Counts a call. The error that it returns instead of doing anything; 0: none. */
    int call(const char *function)
    {
        std::lock_guard<std::mutex> guard(mutex);
        functions.push_back(function);
        return first && (mode_ == ONCE ? functions.size() == first : functions.size() >= first) ? with : 0;
    }

    /* The error that no call clears any more; 0: none. */
    int sticky()
    {
        std::lock_guard<std::mutex> guard(mutex);
        return first && mode_ == STICKY && functions.size() >= first ? with : 0;
    }

    long calls()
    {
        std::lock_guard<std::mutex> guard(mutex);
        return (long)functions.size();
    }

    /* The function that was called, of call 1, 2, ...; "" if there was none. */
    const char *called(long n)
    {
        std::lock_guard<std::mutex> guard(mutex);
        return n >= 1 && (size_t)n <= functions.size() ? functions[(size_t)n - 1] : "";
    }

  private:
    std::mutex mutex;
    size_t first = 0;
    int with = 0;
    mode mode_ = ONCE;
    std::vector<const char *> functions;
};

} // namespace emu

#endif
