// Fetches its argument by HttpClient.
using System;
using System.Net.Http;

class Get
{
    static int Main(string[] arguments)
    {
        try
        {
            Console.Write(new HttpClient().GetStringAsync(arguments[0]).Result);
            return 0;
        }
        catch (AggregateException e)
        {
            Console.Error.WriteLine(e.InnerException);
            return 1;
        }
    }
}
