<%@ page contentType="text/html;charset=UTF-8" %>
<form method="post" action="<%= response.encodeURL("j_security_check") %>">
<input name="j_username"><input name="j_password" type="password">
</form>
